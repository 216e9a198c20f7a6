"""What is asked of a search, and what that means beside what its study began with."""

import os
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from nas.budget import Budget, Write, count_params
from nas.config import BalanceName, DataConfig, MetricName, StudyConfig, check_epochs, first_problem, parse_count
from nas.data.datasets import UNMIRRORED, Dataset, require_known
from nas.data.tables import moved
from nas.errors import ConfigError, choices_sentence
from nas.files import write_whole
from nas.paths import StudyPaths, study_paths
from nas.search.address import study_address
from nas.search.feasibility import check_blocks, check_feasible, smallest_network
from nas.search.filling import check_can_fill
from nas.search.finalists import check_request
from nas.search.settings import Environment, Overrides, StudySettings, read_settings, read_study_space
from nas.search.strategies import said_as_before, spelt_out
from nas.space import Space
from nas.space_file import load_space

DEFAULT_TRIALS = 100


@dataclass(frozen=True)
class SearchRequest:
    """What the user asked for; None takes what the study began with, or the default of a new one."""

    study: str | None = None
    space: str | None = None
    dataset: str | None = None
    data_folder: str | None = None
    labels: str | None = None
    """A table of labels for images in a folder; its columns follow."""
    image_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    image_size: int | None = None
    resize: str | None = None
    channels: str | None = None
    skip_bad_images: bool = False
    train_subset: int | None = None
    seed: int | None = None
    epochs: int | None = None
    max_params: str | None = None
    sampler: str | None = None
    pruner: str | None = None
    metric: str | None = None
    """What networks are pruned, ranked and reported by: one of `MetricName`."""
    class_balance: str | None = None
    """One of `BalanceName`, in place of the space's."""
    trials: int = DEFAULT_TRIALS
    timeout: float | None = None
    """Seconds, the finalists' included."""
    finalists: int | None = None
    """Networks that are trained again at the end; 0 is none. What is None here and below is chosen by cost."""
    finalist_epochs: int | None = None
    finalist_seeds: int | None = None
    device: str = "auto"
    gpus: int | None = None
    """All that are visible; 0 is the CPU."""
    workers_per_gpu: int | None = None
    workers: int | None = None
    """On the CPU."""
    ray: str | None = None
    """Address of the cluster where the workers run, instead of on this machine."""
    gpus_per_worker: float | None = None
    cpus_per_worker: float | None = None
    storage: str | None = None
    """URL of a PostgreSQL database; else SQLite in the study's folder, or what the study began with."""
    warm_start: str | None = None
    """Of a new study: `presets`, `preset:NAME` or `study:NAME`."""

    @property
    def final_round(self) -> tuple[int | None, int | None, int | None]:
        """Finalists, their epochs, their seeds."""
        return self.finalists, self.finalist_epochs, self.finalist_seeds


@dataclass(frozen=True)
class Asked:
    """A request beside what the study began with, as far as that needs no data."""

    paths: StudyPaths
    stored: StudySettings | None
    """What the study began with; None for a new one."""
    overrides: Overrides
    space: Space
    strategies: StudyConfig
    """With every argument."""
    data: DataConfig
    seed: int

    def on(self, dataset: Dataset, write: Write = write_whole) -> tuple[Space, Budget, StudySettings]:
        """The space and the budget for these images, and what a study of them means. `write` keeps what the budget measures.

        Raises NasError where nothing can fit.
        """
        space = self.space.for_images(dataset.shape)
        check_can_fill(space, dataset.shape)
        budget = Budget(space.budget, dataset.shape, self.paths.latencies, write)
        check_feasible(space, budget)
        settings = StudySettings(
            space=space.name,
            overrides=self.overrides,
            parameters=space.describe(),
            budget=space.budget,
            data=self.data,
            data_fingerprint=dataset.fingerprint,
            shape=dataset.shape,
            seed=self.seed,
            study=self.strategies,
            environment=Environment.now(),
        )
        return space, budget, settings


def resolve(request: SearchRequest) -> Asked:
    """Raises NasError for what cannot be meant."""
    if request.trials < 1:
        raise ConfigError(f"--trials counts networks to train and must be at least 1, but is {request.trials}")
    if request.epochs is not None:
        check_epochs(request.epochs)
    if request.timeout is not None and request.timeout <= 0:
        raise ConfigError(f"--timeout must be above 0 seconds, but is {request.timeout:g}")
    paths = study_paths(request.study or default_name(request))
    study_address(paths, request.storage)
    stored = read_settings(paths) if paths.settings.is_file() else None
    overrides = resolve_overrides(request, stored)
    space = resolve_space(request, paths, stored, overrides)
    check_request(*request.final_round, request.trials, space.epochs)
    return Asked(
        paths=paths,
        stored=stored,
        overrides=overrides,
        space=space,
        strategies=resolve_study(request, space, stored, overrides),
        data=resolve_data(request, stored),
        seed=_first(request.seed, stored and stored.seed, 0),
    )


def default_name(request: SearchRequest) -> str:
    """`resnet-cifar10`: the space and the data set."""
    space = load_space(request.space or "resnet").name
    dataset = request.dataset or ("folder" if request.labels else "cifar10")
    require_known(dataset)
    return f"{space}-{dataset}"


def resolve_overrides(request: SearchRequest, stored: StudySettings | None) -> Overrides:
    before = stored.overrides if stored else Overrides()
    dataset = request.dataset or ("folder" if request.labels else "cifar10")
    max_params = None if request.max_params is None else parse_count(request.max_params)
    return Overrides(
        metric=known_word("--metric", request.metric, MetricName) or before.metric,
        class_balance=known_word("--class-balance", request.class_balance, BalanceName) or before.class_balance,
        unmirrored=before.unmirrored if stored else dataset in UNMIRRORED,
        epochs=_first(request.epochs, before.epochs),
        max_params=_first(max_params, before.max_params),
        sampler=_first(request.sampler, before.sampler),
        pruner=_first(request.pruner, before.pruner),
    )


def known_word(option: str, word: str | None, words: Any) -> Any:
    """The word, one of a Literal's. Raises ConfigError with the choices."""
    if word is not None and word not in get_args(words):
        raise ConfigError(f"{option}: {word!r} is none there is.{choices_sentence(word, get_args(words))}")
    return word


def resolve_space(request: SearchRequest, paths: StudyPaths, stored: StudySettings | None, overrides: Overrides) -> Space:
    """The space that was asked for, else the study's own, else the default. Tries the blocks of users' own files."""
    own = request.space is None and stored is not None
    space = read_study_space(paths, stored) if own and stored is not None else load_space(request.space or "resnet")
    check_blocks(space)
    return overrides.applied_to(space)


def resolve_study(request: SearchRequest, space: Space, stored: StudySettings | None, overrides: Overrides) -> StudyConfig:
    """The strategies that the space and the command line ask for, else those that the study began with, every argument as it was
    then."""
    if stored is None:
        return spelt_out(space.study)
    if request.space is None:
        return spelt_out(
            Overrides(sampler=request.sampler, pruner=request.pruner, metric=overrides.metric).applied_to_study(stored.study)
        )
    return spelt_out(said_as_before(space.study, stored.study))


def resolve_data(request: SearchRequest, stored: StudySettings | None) -> DataConfig:
    before = stored.data if stored else None
    if before and request.data_folder and request.labels is None:
        before = moved(before, os.path.abspath(request.data_folder))
    folder = request.data_folder or (before and before.folder)
    labels = request.labels or (before and before.labels)
    if labels is None:
        for name in ("image_column", "label_column", "group_column"):
            if getattr(request, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option} names a column of a table of labels, and there is none", hint="--labels FILE")
    values = {
        "dataset": _first(request.dataset, before and before.dataset, "folder" if labels else "cifar10"),
        "folder": os.path.abspath(folder) if folder else None,
        "labels": os.path.abspath(labels) if labels else None,
        "image_column": _first(request.image_column, before and before.image_column, "image"),
        "label_column": _first(request.label_column, before and before.label_column, "label"),
        "group_column": _first(request.group_column, before and before.group_column),
        "image_size": _first(request.image_size, before and before.image_size),
        "resize": _first(request.resize, before and before.resize, "squash"),
        "channels": _first(request.channels, before and before.channels),
        "skip_bad_images": request.skip_bad_images or bool(before and before.skip_bad_images),
        "subset": _first(request.train_subset, before and before.subset),
        "seed": _first(request.seed, before and before.seed, 0),
    }
    try:
        return DataConfig.model_validate(values)
    except ValidationError as error:
        problem = first_problem(error)
        for field, option in (
            ("image_size", "--image-size"),
            ("subset", "--train-subset"),
            ("resize", "--resize"),
            ("channels", "--channels"),
        ):
            problem = problem.replace(field, option)
        raise ConfigError(problem) from None


def least_params(space: Space, budget: Budget) -> int:
    """Where a front begins: at a 32nd of the budget, or, where the space's networks are larger, at twice its smallest one's
    parameters. Raises ConfigError where no parameters are limited."""
    if budget.limits.params is None:
        raise ConfigError(
            "objective: front needs a budget of parameters, along which it searches",
            hint="budget: {params: 5M} in the space, or --max-params 5M",
        )
    smallest = count_params(smallest_network(space.unscaled(), budget.shape), budget.shape)
    return min(max(2 * smallest, budget.limits.params // 32), budget.limits.params)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)

"""Combines the request of a search with the settings that its study began with."""

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from nas.budget import Budget, Write, count_params
from nas.config import (
    BalanceName,
    DataConfig,
    MetricName,
    StudyConfig,
    check_epochs,
    default_crop_padding,
    first_problem,
    flop_word,
    parse_count,
)
from nas.data.datasets import UNMIRRORED, require_known
from nas.data.formats import has_columns
from nas.data.formats.tables import moved
from nas.data.images import Dataset
from nas.data.splits import Split, default_validation, split, validation_images
from nas.errors import ConfigError, StudyError, choices_sentence
from nas.files import write_whole
from nas.paths import StudyPaths, study_paths
from nas.space.feasibility import (
    check_blocks,
    check_can_fill,
    check_feasible,
    require_counted,
    smallest_network,
    uncounted_sentences,
)
from nas.space.space import Space
from nas.space.space_file import CIFAR10, load_space
from nas.specs import SearchSpec
from nas.study.address import study_address
from nas.study.finalists import check_request
from nas.study.settings import COMPUTE_RULE, Environment, Overrides, StudySettings, read_settings, read_study_space
from nas.study.strategies import fill_defaults, fill_new, inherit_arguments

DEFAULT_SPACE = "resnet"
CROP = "augment.crop_padding"  # the slot


@dataclass(frozen=True)
class Asked:
    """A request combined with the study's settings, as far as that needs no data."""

    paths: StudyPaths
    stored: StudySettings | None  # what the study began with; None for a new one
    overrides: Overrides
    space: Space
    strategies: StudyConfig  # with every argument
    data: DataConfig
    validation_asked: bool  # whether a number of validation images was asked for
    seed: int

    def _split(self, dataset: Dataset) -> tuple[DataConfig, Split]:
        """The data with the number of validation images, which depends on the images in a new study, and the split. Raises
        NasError."""
        data = self.data
        if dataset.validation is not None and self.validation_asked:
            raise ConfigError(
                f"--validation {data.validation:g}: data set {dataset.name} has {len(dataset.validation):,} validation images of "
                "its own",
                hint="leave out --validation",
            )
        if dataset.validation is None and self.stored is None and not self.validation_asked:
            data = data.model_copy(update={"validation": default_validation(dataset, data.subset)})
        return data, split(dataset, data)

    def on(self, dataset: Dataset, write: Write = write_whole) -> tuple[Space, Budget, StudySettings, Split]:
        """For these images: the space, the budget, the settings of a study, and the split. `write` stores what the budget
        measures.

        Raises NasError if nothing can fit, or if the images cannot be split.
        """
        data, parts = self._split(dataset)
        space = self._cropped(dataset.shape.size).for_images(dataset.shape)
        check_can_fill(space, dataset.shape)
        budget = Budget(space.budget, dataset.shape, self.paths.latencies, write)
        check_feasible(space, budget)
        uncounted = uncounted_sentences(space, dataset.shape)
        if self.stored is None:  # older studies continue
            require_counted(budget, uncounted)
        settings = StudySettings(
            space=space.name,
            overrides=self.overrides,
            parameters=space.describe(),
            budget=space.budget,
            uncounted=uncounted,
            data=data,
            train_images=len(parts.train),
            validation_images=validation_images(dataset, parts),
            data_fingerprint=dataset.fingerprint,
            data_order=dataset.order,
            shape=dataset.shape,
            seed=self.seed,
            study=self.strategies,
            compute_rule=COMPUTE_RULE,
            identity=(self.stored and self.stored.identity) or uuid.uuid4().hex,
            environment=Environment.now(),
        )
        return space, budget, settings, parts

    def _cropped(self, size: int) -> Space:
        """The space. If it does not set a crop, the crop depends on the size of the images; in an older study it stays as it
        was."""
        known = self.stored is None or CROP in self.stored.parameters
        if size == CIFAR10.size or not known or CROP in self.space.by_name:
            return self.space
        return self.space.with_fixed(CROP, ("train", "augment", "crop_padding"), default_crop_padding(size))


def resolve(request: SearchSpec) -> Asked:
    """Raises NasError for an impossible request."""
    if request.trials < 1:
        raise ConfigError(f"--trials must be at least 1, but is {request.trials}", hint="--trials 12")
    if request.epochs is not None:
        check_epochs(request.epochs)
    if request.timeout is not None and request.timeout <= 0:
        raise ConfigError(f"--timeout must be above 0 seconds, but is {request.timeout:g}")
    paths = study_paths(request.study or default_name(request))
    study_address(paths, request.storage)
    stored = read_settings(paths) if paths.settings.is_file() else None
    overrides = resolve_overrides(request, stored)
    space = resolve_space(request, paths, stored, overrides)
    strategies = resolve_study(request, space, stored, overrides)
    check_request(*request.final_round, request.trials, space.epochs)
    if strategies.final_compute is not None:
        require_rankable(strategies.final_compute, strategies.trial_compute, space.budget.macs)
    return Asked(
        paths=paths,
        stored=stored,
        overrides=overrides,
        space=space,
        strategies=strategies,
        data=resolve_data(request, stored),
        validation_asked=request.validation is not None,
        seed=request.seed if request.seed is not None else stored.seed if stored else 0,
    )


def default_name(request: SearchSpec) -> str:
    """`resnet-cifar10`: the space and the data set."""
    space = load_space(request.space or DEFAULT_SPACE).name
    require_known(request.new_dataset)
    return f"{space}-{request.new_dataset}"


def resolve_overrides(request: SearchSpec, stored: StudySettings | None) -> Overrides:
    before = stored.overrides if stored else Overrides(unmirrored=request.new_dataset in UNMIRRORED)
    said = {name: getattr(request, name) for name in Overrides.model_fields if hasattr(request, name)} | {
        "metric": known_word("--metric", request.metric, MetricName),
        "class_balance": known_word("--class-balance", request.class_balance, BalanceName),
        "max_params": None if request.max_params is None else parse_count(request.max_params),
    }
    return Overrides.model_validate(before.model_dump() | _without_none(said))


def known_word(option: str, word: str | None, words: Any) -> Any:
    """The word, one of a Literal's. Raises ConfigError with the choices."""
    if word is not None and word not in get_args(words):
        raise ConfigError(f"unknown value {word!r} for {option}.{choices_sentence(word, get_args(words))}")
    return word


def resolve_space(request: SearchSpec, paths: StudyPaths, stored: StudySettings | None, overrides: Overrides) -> Space:
    """The requested space, else the study's own, else the default. Tries the users' own blocks."""
    own = request.space is None and stored is not None
    space = read_study_space(paths, stored) if own and stored is not None else load_space(request.space or DEFAULT_SPACE)
    check_blocks(space)
    return overrides.applied_to(space)


def resolve_study(request: SearchSpec, space: Space, stored: StudySettings | None, overrides: Overrides) -> StudyConfig:
    """The sampler and the pruner that the space and the command line ask for, else those of the study, with every argument as it
    was then."""
    if stored is None:
        return fill_new(space.study, space.epochs, space.warmup)
    if request.space is None:
        asked_now = overrides.model_copy(update={"sampler": request.sampler, "pruner": request.pruner})
        return fill_defaults(asked_now.applied_to_study(stored.study))
    return fill_defaults(inherit_arguments(space.study, stored.study))


def require_rankable(final_flop: float, trial_flop: float | None, most_macs: int | None) -> None:
    """Raises ConfigError if the trials of a search cannot rank networks for a final training of `final_flop`."""
    wrong = f"--final-compute {flop_word(final_flop)}"
    if trial_flop is None:
        raise ConfigError(
            f"{wrong} needs --trial-compute", hint="add it, such as --trial-compute 10TFLOP: what a trial takes at most"
        )
    if trial_flop > final_flop:
        raise ConfigError(
            f"{wrong} is less than --trial-compute {flop_word(trial_flop)}",
            hint="lower --trial-compute: a trial is shorter than the final training",
        )
    if most_macs is None:
        raise ConfigError(
            f"{wrong} needs a limit of MACs, because the trial of a network at the limit takes --trial-compute",
            hint="add it to the space file, such as budget: {macs: 130M}",
        )


def resolve_data(request: SearchSpec, stored: StudySettings | None) -> DataConfig:
    before = stored.data if stored else None
    if before and request.data_folder and request.labels is None:
        there, before = before, moved(before, os.path.abspath(request.data_folder))
        if before.labels is not None and not os.path.isfile(before.labels):
            raise StudyError(
                f"--data {before.folder}: its labels are expected in {before.labels}, but there is no such file (the study had "
                f"the images in {there.folder} and the labels in {there.labels})",
                hint="for the same images, name their table with --labels FILE; for others, start a study with --study NAME",
            )
    where = request.data_folder or (before and before.folder)
    if request.labels is None and (before is None or before.labels is None):
        options = ("image_column", "label_column", "label_columns", "no_header", "group_column")
        given = next((f"--{name.replace('_', '-')}" for name in options if getattr(request, name)), None)
        if given is not None and not (where and has_columns(Path(where))):
            raise ConfigError(f"{given} needs a table of labels", hint="name the table: --labels FILE")
    said = {name: getattr(request, name) for name in DataConfig.model_fields if hasattr(request, name)} | {
        "folder": request.data_folder and os.path.abspath(request.data_folder),
        "labels": request.labels and os.path.abspath(request.labels),
        "header": False if request.no_header else None,
        "skip_bad_images": request.skip_bad_images or None,
        "group_duplicates": request.group_duplicates or None,
        "subset": request.train_subset,
    }
    known = {"dataset": request.new_dataset} if before is None else before.model_dump()
    try:
        return DataConfig.model_validate(known | _without_none(said))
    except ValidationError as error:
        field, _, problem = first_problem(error).partition(":")
        option = "train-subset" if field == "subset" else field.replace("_", "-")
        raise ConfigError(f"--{option}:{problem}") from None


def least_params(space: Space, budget: Budget) -> int:
    """Where a front begins: at 1/32 of the budget, or at twice the parameters of the space's smallest network if that is more.
    Raises ConfigError if parameters are not limited."""
    if budget.limits.params is None:
        raise ConfigError(
            "objective: front needs a parameter budget",
            hint="budget: {params: 5M} in the space, or --max-params 5M",
        )
    smallest = count_params(smallest_network(space.unscaled(), budget.shape), budget.shape)
    return min(max(2 * smallest, budget.limits.params // 32), budget.limits.params)


def _without_none(said: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value is not None}

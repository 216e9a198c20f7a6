"""The settings that give a study its meaning: written when it begins, and compared before it resumes."""

import platform
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from nas import __version__
from nas.budget import FVCORE_FAILED
from nas.config import (
    BalanceName,
    BudgetConfig,
    DataConfig,
    Frozen,
    ImageShape,
    MetricName,
    StrategyConfig,
    StudyConfig,
    flop_word,
)
from nas.errors import StudyError
from nas.paths import StudyPaths
from nas.space.space import Space
from nas.space.space_file import read_space
from nas.study.address import redacted
from nas.study.strategies import describe, fill_defaults

RECORDED_PACKAGES = ("nas", "torch", "torchvision", "optuna", "fvcore", "numpy")
PLACES = {"folder", "labels"}  # of `DataConfig`: the places of the data, which its fingerprint does not depend on
NOT_IMPORTABLE = "not importable"  # instead of fvcore's version, if torch counts
PRESETS_SPACE = "presets"  # instead of a space's name, in a study that only holds retrained presets


class Environment(Frozen):
    """When, where and with which versions a study or a network was made."""

    created: str
    command: str
    python: str
    packages: dict[str, str]
    git: str | None  # commit of the working folder, with `+changes` where it is not clean; None outside a checkout
    machine: str

    @classmethod
    def now(cls) -> Self:
        program = Path(sys.argv[0]).name
        own = program.endswith(".py") and program != "__main__.py"  # a script, or a notebook's kernel
        called = ["python", program] if own else ["nas"]
        return cls(
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
            command=shlex.join([*called, *(redacted(argument) for argument in sys.argv[1:])]),
            python=platform.python_version(),
            packages=installed_versions(RECORDED_PACKAGES),
            git=git_state(),
            machine=platform.platform(),
        )


def installed_versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = __version__ if package == "nas" else version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    if FVCORE_FAILED is not None and "fvcore" in found:
        found["fvcore"] = NOT_IMPORTABLE
    return found


@cache
def git_state() -> str | None:
    """Of the checkout that this package runs from, when this process first asked."""
    git = partial(subprocess.run, cwd=Path(__file__).resolve().parent, capture_output=True, text=True, timeout=10)
    try:
        commit, changes = git(["git", "rev-parse", "--short=12", "HEAD"]), git(["git", "status", "--porcelain", "--", "."])
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode:
        return None
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def unmirrored(space: Space) -> Space:
    """The same space without flips."""
    space = space.with_fixed("augment.flip", ("train", "augment", "flip"), "none")
    if "augment.vertical_flip" in space.by_name:
        space = space.with_fixed("augment.vertical_flip", ("train", "augment", "vertical_flip"), 0.0)
    return space


COMPUTE = ("trial_compute", "final_compute")
COMPUTE_RULE = 2  # how the compute of a trial follows from `final_compute`; 1 gave small networks less
REORDERED = "the training images are in another order than when the study began, perhaps because files were renamed"


class Overrides(Frozen):
    """Values of the command line that replace those of the space file."""

    epochs: int | None = None
    max_params: int | None = None
    sampler: str | None = None
    pruner: str | None = None
    metric: MetricName | None = None
    class_balance: BalanceName | None = None
    trial_compute: float | None = None
    final_compute: float | None = None
    unmirrored: bool = False  # set by the data set, not by the command line: mirrored images have another meaning

    def applied_to(self, space: Space) -> Space:
        if self.epochs is not None:
            space = space.with_epochs(self.epochs)
        if self.max_params is not None:
            space = replace(space, budget=space.budget.model_copy(update={"params": self.max_params}))
        if self.class_balance is not None:
            space = space.with_fixed("class_balance", ("train", "class_balance"), self.class_balance)
            space.check_combinations(f"space {space.name} with --class-balance {self.class_balance}")
        if self.unmirrored:
            space = unmirrored(space)
        return replace(space, study=self.applied_to_study(space.study))

    def applied_to_study(self, study: StudyConfig) -> StudyConfig:
        """Another name gets its own defaults; the same name keeps the arguments."""
        changed: dict[str, Any] = {
            kind: StrategyConfig(name=name)
            for kind, name, before in (("sampler", self.sampler, study.sampler), ("pruner", self.pruner, study.pruner))
            if name is not None and name != before.name
        }
        for name in ("metric", *COMPUTE):
            if (value := getattr(self, name)) is not None:
                changed[name] = value
        return study.model_copy(update=changed)


FIRST_STRATEGIES = StudyConfig(
    sampler=StrategyConfig(name="tpe", arguments={"startup_trials": 20, "candidates": 24, "good": 0.1}),
    pruner=StrategyConfig(name="asha", arguments={"reduction": 3, "first_rung": None}),
)
"""Of studies older than the names of strategies, which do not store them."""


def _word(flop: float | None) -> str | None:
    return None if flop is None else flop_word(flop)


def _changes(pairs: list[tuple[str, Any, Any]]) -> list[str]:
    return [f"{name}: {before} → {after}" for name, before, after in pairs if before != after]


class StudySettings(Frozen):
    """Fixed for the life of a study, except `environment`, the places of the data, and fields that only describe."""

    space: str  # its name; what it means is in `parameters` and `budget`
    overrides: Overrides
    parameters: dict[str, str]  # each of the space's slots in words, the epochs among them
    budget: BudgetConfig
    uncounted: tuple[str, ...] = ()  # sentences: which MACs of users' own blocks are not counted
    data: DataConfig
    data_fingerprint: str  # of the labels, classes and pixel statistics, not of the folder
    data_order: str | None = None  # of the training images; None in older studies
    shape: ImageShape
    seed: int
    study: StudyConfig = FIRST_STRATEGIES  # its strategies, with every argument
    train_images: int | None = None  # of an epoch; None in older studies until they are resumed
    validation_images: int | None = None  # None in older studies until they are resumed
    identity: str | None = None
    """Random; the study in the database has the same. None in older studies until they are resumed."""
    workers: int | None = None  # default number on the CPU, chosen when the study began; None: one
    compute_rule: int = 1  # COMPUTE_RULE when the study began
    environment: Environment

    def differences(self, new: "StudySettings") -> list[str]:
        """One sentence for each setting that `new` changes."""
        names = sorted(self.parameters.keys() | new.parameters.keys())
        pairs: list[tuple[str, Any, Any]]
        pairs = [(name, self.parameters.get(name, "absent"), new.parameters.get(name, "absent")) for name in names]
        for part in ("budget", "data"):
            fields = dict(getattr(new, part))
            pairs += [(f"{part}.{key}", old, fields[key]) for key, old in getattr(self, part) if key not in PLACES]
        found = _changes(pairs)
        if self.data_fingerprint != new.data_fingerprint:
            what, began = "images or labels", ""
            moved = self.data.labels is None and self.data.folder != new.data.folder
            if moved and None not in (self.data.folder, new.data.folder):
                what, began = f"images in {new.data.folder}", f", in {self.data.folder}"
            found.append(f"data: the {what} differ from those of the study{began}")
        elif None not in (self.data_order, new.data_order) and self.data_order != new.data_order:
            found.append(f"data: {REORDERED}")
        pairs = [("seed", self.seed, new.seed)]
        pairs += [(name, getattr(self.study, name), getattr(new.study, name)) for name in ("metric", "objective")]
        pairs += [(name, _word(getattr(self.study, name)), _word(getattr(new.study, name))) for name in COMPUTE]
        if self.study.final_compute is not None:
            pairs.append(("rule of final_compute", self.compute_rule, new.compute_rule))
        before, after = fill_defaults(self.study), fill_defaults(new.study)  # an argument may be newer than the study
        pairs += [(kind, describe(getattr(before, kind)), describe(getattr(after, kind))) for kind in ("sampler", "pruner")]
        return found + _changes(pairs)

    def same_trainings_as(self, other: "StudySettings") -> bool:
        """Whether a candidate trained in one of the studies need not be trained again in the other."""
        return (
            self.data_fingerprint == other.data_fingerprint
            and self.study.metric == other.study.metric
            and all(getattr(self.study, name) == getattr(other.study, name) for name in COMPUTE)
            and self.data.model_dump(exclude=PLACES) == other.data.model_dump(exclude=PLACES)
            and all(self.parameters.get(name) == other.parameters.get(name) for name in ("epochs", "epoch_images"))
            and (
                self.study.final_compute is None
                or (self.budget.macs, self.compute_rule) == (other.budget.macs, other.compute_rule)
            )
        )

    def require_same(self, new: "StudySettings", study: str) -> None:
        """Raises StudyError with every difference if `new` has another meaning."""
        found = self.differences(new)
        if found:
            listed = "\n".join(f"  {difference}" for difference in found)
            raise StudyError(
                f"study {study!r} was started with other settings, so its trials would not be comparable:\n{listed}",
                hint=f"resume it with `nas search --study {study}`, or use another name with --study NAME",
            )


def read_settings(paths: StudyPaths) -> StudySettings:
    return StudySettings.from_json(paths.settings.read_bytes(), source=str(paths.settings))


def read_study_space(paths: StudyPaths, settings: StudySettings) -> Space:
    """The study's own copy of its space file, with the blocks that it names; without the overrides."""
    if settings.space == PRESETS_SPACE:
        raise StudyError(
            f"study {paths.name!r} has only retrained presets and no search",
            hint="start a search under another name with --study NAME",
        )
    return read_space(
        paths.space.read_text(encoding="utf-8"),
        source=str(paths.space),
        name=settings.space,
        find_file=lambda file: paths.blocks / Path(file).name,
    )

"""Networks of a study: those that its search drew, and those that were retrained."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import nn

from nas.api import html
from nas.config import ArchConfig, Candidate, ImageShape, TrainConfig
from nas.errors import StudyError
from nas.export.formats import Predictor
from nas.models import ResNet, build_model
from nas.paths import StudyPaths, TrialPaths
from nas.runs.baseline import load_baseline
from nas.runs.card import ModelCard, read_card
from nas.runs.comparison import BaselineCard, read_baseline
from nas.runs.load import load_network
from nas.runs.select import finished_runs
from nas.study.settings import read_settings
from nas.study.trials import TrialRecord
from nas.train.checkpoint import EpochMetrics, read_curve


@dataclass(frozen=True)
class Trial:
    """A network that the search drew, with its recipe."""

    paths: StudyPaths
    row: TrialRecord  # as `nas list` shows it

    def __repr__(self) -> str:
        accuracy = "" if self.accuracy is None else f", {self.accuracy:.2%} after {self.row.epochs} epochs"
        return f"Trial({self.number} of {self.paths.name!r}: {self.outcome}{accuracy}, {self.row.architecture})"

    def _repr_html_(self) -> str:
        """For a notebook: the network drawn, if it was trained."""
        known = self.paths.trial(self.number).candidate.is_file() and self.params is not None
        return html.heading(repr(self)) + (html.picture(self.arch, self.shape, self.params or 0) if known else "")

    @property
    def number(self) -> int:
        return self.row.number

    @property
    def outcome(self) -> str:
        """trained, pruned_early, diverged, over_budget, duplicate, failed, running or waiting."""
        return self.row.outcome

    @property
    def accuracy(self) -> float | None:
        """On the validation images, after the last trained epoch."""
        return self.row.accuracy

    @property
    def params(self) -> int | None:
        return self.row.params

    @property
    def macs(self) -> int | None:
        """MACs (multiply–accumulate operations) of one image."""
        return self.row.macs

    @cached_property
    def candidate(self) -> Candidate:
        """Raises StudyError for a trial that was never trained, of which only `row` is stored."""
        file = self.paths.trial(self.number).candidate
        if not file.is_file():
            raise StudyError(
                f"trial {self.number} of study {self.paths.name!r} ({self.outcome}) was not trained: its network is not kept",
                hint="use one of study.trials with the outcome trained, pruned_early or diverged",
            )
        return Candidate.from_file(file)

    @property
    def arch(self) -> ArchConfig:
        return self.candidate.arch

    @property
    def train(self) -> TrainConfig:
        """Its recipe in the search."""
        return self.candidate.train

    @property
    def shape(self) -> ImageShape:
        """Of the images that it is built for."""
        return read_settings(self.paths).shape

    @property
    def curve(self) -> list[EpochMetrics]:
        """Its training in the search, epoch by epoch."""
        return read_curve(self.paths.trial(self.number).metrics)

    @property
    def runs(self) -> list["Run"]:
        """Its retrainings, oldest first."""
        title = f"trial {self.number}"
        return [run for run in runs_of(self.paths) if run.card.subject == title]

    def build(self, trained: bool | None = None) -> ResNet:
        """The torch module, on the CPU: images (N, C, H, W), normalised, to logits (N, classes).

        Args:
            trained: True: the weights of its latest retraining; False: random initialisation; None: retrained weights if there
                are any. Weights of the search are not used: they are only kept to resume.

        Raises StudyError if `trained` is True and no retraining has completed.
        """
        runs = [] if trained is False else self.runs
        if runs:
            return runs[-1].build()
        if trained:
            raise StudyError(
                f"trial {self.number} of study {self.paths.name!r} has not been retrained, so there are no weights to load",
                hint=f"study.retrain({self.number}), or nas retrain {self.number} --study {self.paths.name}",
            )
        return build_model(self.arch, self.shape)


@dataclass(frozen=True)
class Trained(ABC):
    """A network whose training has completed: the base of `Run` and `Baseline`."""

    paths: TrialPaths

    @property
    @abstractmethod
    def card(self) -> ModelCard | BaselineCard:
        """How and on what it was trained, and its scores."""

    @property
    def name(self) -> str:
        """Its name in `nas runs`."""
        return self.paths.folder.name

    @property
    def folder(self) -> Path:
        return self.paths.folder

    @property
    def params(self) -> int:
        return self.card.params

    @property
    def test_accuracy(self) -> float | None:
        """On the official test set, with the test-time augmentation of `card.tta`; None if the run did not
        evaluate it, or was trained on it."""
        return self.card.test_accuracy_tta

    @property
    def curve(self) -> list[EpochMetrics]:
        return read_curve(self.paths.metrics)


@dataclass(frozen=True, repr=False)
class Run(Trained):
    """A retrained network."""

    def __repr__(self) -> str:
        tested = "" if self.test_accuracy is None else f", test {self.test_accuracy:.2%}"
        return f"Run({self.name!r}: {self.arch.one_line()}{tested})"

    def _repr_html_(self) -> str:
        """For a notebook: the network drawn."""
        return html.heading(repr(self)) + html.picture(self.arch, self.card.shape, self.params)

    @cached_property
    def card(self) -> ModelCard:
        """How and on what it was trained, and its scores."""
        return read_card(self.paths)

    @property
    def macs(self) -> int:
        return self.card.macs

    @property
    def arch(self) -> ArchConfig:
        return self.card.candidate.arch

    @property
    def train(self) -> TrainConfig:
        return self.card.candidate.train

    def build(self) -> ResNet:
        """The torch module with its weights, on the CPU, in evaluation mode: images (N, C, H, W), normalised by `card.mean` and
        `card.std`, to logits (N, classes). Raises NasError if a file is missing or was changed."""
        return load_network(self.paths)[0]

    def predictor(self, tta: str | None = None) -> Predictor:
        """The network with normalisation and test-time augmentation, as `nas submit` uses it: uint8 images (N, H, W, C) to
        logits (N, classes)."""
        model, card = load_network(self.paths)
        return Predictor(model, card.mean, card.std, tta or card.tta).eval()


@dataclass(frozen=True, repr=False)
class Baseline(Trained):
    """A known network that was trained like a network of the study, to compare them."""

    def __repr__(self) -> str:
        over = "" if self.over is None else f", over budget by {self.over}"
        tested = "" if self.test_accuracy is None else f", test {self.test_accuracy:.2%}"
        return f"Baseline({self.card.network.name!r}, seed {self.card.seed}: {self.params:,} parameters{over}{tested})"

    @cached_property
    def card(self) -> BaselineCard:
        """How and on what it was trained, and its scores."""
        return read_baseline(self.paths)

    @property
    def macs(self) -> int | None:
        return self.card.macs

    @property
    def over(self) -> str | None:
        """By how much it is over the study's budget; None if it fits."""
        return self.card.network.over_text

    @property
    def train(self) -> TrainConfig:
        return self.card.train

    def build(self) -> nn.Module:
        """The torch module with its weights, on the CPU, in evaluation mode: images (N, C, H, W), normalised by `card.mean` and
        `card.std`, to logits (N, classes). Runs the file that it came from. Raises NasError if a file is missing or was
        changed."""
        return load_baseline(self.paths)[0]


def runs_of(paths: StudyPaths) -> list[Run]:
    """Oldest first."""
    return [Run(run) for run in finished_runs(paths)]

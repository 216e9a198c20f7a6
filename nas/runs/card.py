"""The files of a retrained network: its card, and the hashes that identify the files.

studies/<study>/retrained/<run>/
    candidate.json       the network and its recipe, from the start
    model.safetensors    the averaged weights
    model.json           a `ModelCard`: candidate, classes, normalisation, how and on what it was trained, its score, its hashes
    metrics.jsonl        one line for each epoch
    evaluation.npz       its predictions on the official test set, or on held-out images if there is none or it was trained on
    submissions.jsonl    its submissions, see `nas.runs.ledger`
"""

import hashlib
import json
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Generic, Literal, TypeVar

from nas.config import Candidate, DataConfig, Frozen, ImageShape, MetricName
from nas.errors import StudyError
from nas.files import sha256_of, write_whole
from nas.paths import TrialPaths
from nas.runs.statistics import Spread, spread
from nas.space.recipes import SEARCHED
from nas.study.settings import Environment

IF_INTENDED = 'if the change is intended, remove the key "hashes" from model.json'


ScoredImages = Literal["clean", "shifted", "test"]
"""Held-out images, as they are or under a simulated shift; or the official test set, with the recipe's test-time augmentation."""


class Hashes(Frozen):
    """SHA-256, in hexadecimal."""

    weights: str
    evaluation: str | None
    card: str  # Of the card's content without this field, see `content_hash`


class HeldOut(Frozen):
    """Scores of a trained network on held-out images, with its test-time augmentation."""

    images: int
    accuracy: float
    shifted_accuracy: float  # On the same images under a simulated shift (`nas.data.shift`)
    score: float | None = None  # By the study's metric, if that is not accuracy
    shifted_score: float | None = None  # The same under the shift
    effective_images: float | None = None
    """Number of independent images that `images` are worth for the interval of the accuracy, if they come in groups
    (`evaluation`)."""
    shifted_effective_images: float | None = None  # The same under the shift

    @property
    def counted(self) -> float:
        """Number of independent images for the interval of the accuracy."""
        return self.effective_images or self.images

    @property
    def shifted_counted(self) -> float:
        """The same under the shift."""
        return self.shifted_effective_images or self.images

    @property
    def clean(self) -> float:
        """The score on clean images, by which networks are chosen."""
        return self.accuracy if self.score is None else self.score

    @property
    def shifted(self) -> float:
        """The score under the shift, for a choice by shifted images."""
        return self.shifted_accuracy if self.shifted_score is None else self.shifted_score


class TrainedCard(Frozen):
    """A trained network, of nas or a known one: how and on what it was trained, how its input is normalised, and its scores."""

    study: str
    shape: ImageShape
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # Subtracted from each channel of an image in [0, 255]
    std: tuple[float, ...]  # Each channel is then divided by it
    data: DataConfig
    data_fingerprint: str
    train_images: int
    metric: MetricName = "accuracy"  # The study's
    held_out: HeldOut | None = None
    test_images: int | None = None
    """Of the official test set; None if it has no labels, if they were used for training, or if it was not evaluated."""
    test_accuracy: float | None = None
    test_accuracy_tta: float | None = None  # With the card's test-time augmentation, like the scores below
    test_balanced_accuracy: float | None = None
    test_macro_f1: float | None = None
    test_shifted_accuracy: float | None = None  # Under a simulated shift
    seconds: float
    device: str
    precision: str
    environment: Environment

    @property
    def test_score(self) -> float | None:
        """On the official test set, by `metric`."""
        by_metric = {"accuracy": self.test_accuracy_tta, "balanced_accuracy": self.test_balanced_accuracy}
        return by_metric.get(self.metric, self.test_macro_f1)

    def score(self, on: ScoredImages) -> float | None:
        """By `metric`; None if it was not evaluated on these images."""
        if on == "test":
            return self.test_score
        return None if self.held_out is None else self.held_out.clean if on == "clean" else self.held_out.shifted


class ModelCard(TrainedCard):
    """A trained network without its weights: enough to build it, to prepare its input, and to know where it comes from."""

    subject: str  # `trial 7`, or `preset:resnet-2322`
    recipe: str = SEARCHED  # Its name, or that of its file; the candidate holds its values
    candidate: Candidate  # With the epochs of this training
    params: int
    macs: int
    includes_test_labels: bool
    seed: int
    search_accuracy: float | None  # On the validation images of the search, in [0, 1], by `metric`
    tta: str  # The default test-time augmentation of `nas submit`
    processes: int = 1  # That shared each batch
    hashes: Hashes | None = None  # None in cards of older versions

    @property
    def flop(self) -> float:
        """Operations of its training (`nas.config.training_flop`)."""
        return self.candidate.train.flop(self.macs, self.train_images)


C = TypeVar("C", bound=TrainedCard)


@dataclass(frozen=True, kw_only=True)
class BySeed(Generic[C]):
    """The trainings of one network with several seeds."""

    cards: dict[int, C]  # By seed; runs that ended and were evaluated
    diverged: tuple[int, ...] = ()  # Seeds

    def scores(self, on: ScoredImages) -> dict[int, float]:
        """By seed."""
        found = {seed: card.score(on) for seed, card in sorted(self.cards.items())}
        return {seed: score for seed, score in found.items() if score is not None}

    def over_seeds(self, on: ScoredImages) -> Spread | None:
        return spread(list(self.scores(on).values()))

    @property
    def seconds(self) -> float | None:
        """Mean duration of a training."""
        return fmean(card.seconds for card in self.cards.values()) if self.cards else None


def write_card(run: TrialPaths, card: ModelCard) -> ModelCard:
    """Writes the card with the hashes of the files beside it, which must exist. Raises OSError."""
    evaluation = sha256_of(run.evaluation) if run.evaluation.is_file() else None
    hashes = Hashes(weights=sha256_of(run.weights), evaluation=evaluation, card="")
    content = content_hash(json.loads(card.model_copy(update={"hashes": hashes}).to_json()))
    sealed = card.model_copy(update={"hashes": hashes.model_copy(update={"card": content})})
    write_whole(run.card, (sealed.to_json() + "\n").encode())
    return sealed


def content_hash(tree: dict[str, Any]) -> str:
    """Hash of a card's content without `hashes.card`. Whitespace and the order of keys do not matter."""
    if isinstance(hashes := tree.get("hashes"), dict):
        tree = tree | {"hashes": {name: value for name, value in hashes.items() if name != "card"}}
    return hashlib.sha256(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_card(run: TrialPaths) -> ModelCard:
    return ModelCard.from_json(_text(run), source=str(run.card))


def _text(run: TrialPaths) -> str:
    return run.card.read_bytes().decode("utf-8", "replace")  # damaged text gets another hash


def read_sealed_card(run: TrialPaths) -> tuple[ModelCard, str]:
    """The card and its `content_hash`. Raises NasError if the content was changed."""
    file = run.card
    if run.baseline.is_file():
        raise StudyError(
            f"{run.folder} is a baseline, which is only for comparison and never submitted",
            hint="nas runs lists the runs that can be submitted",
        )
    if not file.is_file():
        raise StudyError(
            f"{run.folder} is not a retrained network: it has no {file.name}",
            hint="nas retrain resumes an unfinished training" if run.checkpoint.is_file() else "nas runs lists them",
        )
    card = read_card(run)
    found = content_hash(json.loads(_text(run)))
    if card.hashes is not None and found != card.hashes.card:
        raise StudyError(
            f"{file} was changed after the training: the hash of its content begins with {found[:12]}, "
            f"and it states {card.hashes.card[:12]}",
            hint=f"restore it from a copy; {IF_INTENDED}",
        )
    return card, found

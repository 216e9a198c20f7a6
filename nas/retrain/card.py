"""What a retrained network is kept as, and how it is found and loaded again.

studies/<study>/retrained/<run>/
    model.safetensors    the averaged weights
    model.json           a `ModelCard`: candidate, classes, normalisation, how and on what it was trained, its score
    metrics.jsonl        a line an epoch
    evaluation.npz       what it says of the official test set, where there is one and it was not trained on
"""

from pathlib import Path

from safetensors.torch import load_file

from nas.config import Candidate, DataConfig, Frozen, ImageShape, MetricName
from nas.errors import StudyError, choices_sentence
from nas.models import ResNet, build_model
from nas.paths import StudyPaths, TrialPaths
from nas.search.settings import Environment


class ModelCard(Frozen):
    """A trained network without its weights: enough to build it, feed it and say where it comes from."""

    study: str
    subject: str
    """`trial 7`, or `preset:resnet-2322`."""
    candidate: Candidate
    """With the epochs that it was trained for here."""
    params: int
    macs: int
    shape: ImageShape
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    """What is subtracted from each channel of an image in [0, 255] …"""
    std: tuple[float, ...]
    """… and what it is then divided by."""
    data: DataConfig
    data_fingerprint: str
    train_images: int
    includes_test_labels: bool
    seed: int
    search_accuracy: float | None
    """What it reached on the validation images in the search, in [0, 1], by `metric`."""
    metric: MetricName = "accuracy"
    """What the study judges networks by."""
    test_images: int | None
    """Of the official test set; None where it has no labels, or they were trained on."""
    test_accuracy: float | None
    test_accuracy_tta: float | None
    """With the test-time augmentation of `tta`."""
    test_balanced_accuracy: float | None = None
    """Likewise, as the next."""
    test_macro_f1: float | None = None
    tta: str
    """What `nas submit` averages over unless told otherwise."""
    seconds: float
    device: str
    precision: str
    environment: Environment


def card_file(run: TrialPaths) -> Path:
    return run.folder / "model.json"


def weights_file(run: TrialPaths) -> Path:
    return run.folder / "model.safetensors"


def read_card(run: TrialPaths) -> ModelCard:
    return ModelCard.from_json(card_file(run).read_text(), source=str(card_file(run)))


def finished_runs(paths: StudyPaths) -> list[TrialPaths]:
    """Oldest first."""
    files = sorted(paths.retrained.glob("*/model.json"), key=lambda file: file.stat().st_mtime)
    return [TrialPaths(file.parent) for file in files]


def find_run(paths: StudyPaths, name: str | None) -> TrialPaths:
    """The named run, or the latest. Raises StudyError with the runs there are."""
    runs = finished_runs(paths)
    if not runs:
        raise StudyError(
            f"study {paths.name!r} has no retrained network yet",
            hint=f"nas retrain best --study {paths.name}   makes one",
        )
    if name is None:
        return runs[-1]
    by_name = {run.folder.name: run for run in runs}
    if name not in by_name:
        raise StudyError(f"{name!r} is no retrained network of study {paths.name!r}.{choices_sentence(name, by_name)}")
    return by_name[name]


def load_network(run: TrialPaths) -> tuple[ResNet, ModelCard]:
    """The network with its weights, on the CPU, in evaluation mode."""
    card = read_card(run)
    model = build_model(card.candidate.arch, card.shape)
    model.load_state_dict(load_file(weights_file(run)))
    return model.eval(), card

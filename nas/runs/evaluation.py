"""Predictions of a trained network on labelled images that it was not trained on. They are stored beside it, so that a report
needs neither the network nor the images."""

import io
import zlib
from dataclasses import asdict, dataclass
from zipfile import BadZipFile

import numpy as np
import torch
from torch import nn

from nas.config import MetricName
from nas.data.cache import Progress, silent
from nas.data.images import ImageSet
from nas.data.loader import Resident
from nas.data.shift import shifted
from nas.device import FULL_PRECISION
from nas.errors import StudyError
from nas.files import write_whole
from nas.paths import TrialPaths
from nas.runs.card import HeldOut
from nas.runs.context import TrainingContext
from nas.runs.statistics import effective_images
from nas.train.evaluate import METRICS, ClassCounts, predict_logits

KEPT_MISTAKES = 24


@dataclass(frozen=True)
class Evaluation:
    labels: np.ndarray  # int64 (N,)
    probabilities: np.ndarray  # float32 (N, classes)
    wrong: np.ndarray  # int64 (M,): indices of the most confident mistakes, in this order
    wrong_images: np.ndarray  # uint8 (M, H, W, C): their images

    @property
    def predicted(self) -> np.ndarray:
        """int64 (N,)"""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        return float((self.predicted == self.labels).mean())

    def score(self, metric: MetricName) -> float:
        return METRICS[metric](ClassCounts.of(self.labels, self.predicted, self.probabilities.shape[1]))


def judge(
    model: nn.Module, data: Resident, images: ImageSet, tta: str, progress: Progress = silent, what: str = "judging"
) -> Evaluation:
    """Predicts as for a submission. `data` holds `images` on the network's device; `what` names these images."""
    logits = predict_logits(model, data, FULL_PRECISION, tta, progress=progress, what=what)
    predicted = logits.argmax(1).cpu().numpy()
    probabilities = torch.softmax(logits, 1).cpu().numpy()
    labels = np.asarray(images.labels, dtype=np.int64)
    mistakes = np.flatnonzero(predicted != labels)
    confidence = probabilities[mistakes, predicted[mistakes]]
    wrong = mistakes[np.argsort(-confidence, kind="stable")[:KEPT_MISTAKES]]
    return Evaluation(labels, probabilities, wrong, np.ascontiguousarray(images.images[wrong]))


def write_evaluation(run: TrialPaths, evaluation: Evaluation) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **asdict(evaluation))
    write_whole(run.evaluation, buffer.getbuffer())


def read_evaluation(run: TrialPaths) -> Evaluation | None:
    """None if none was stored: there were no labelled images, or the run is of an older version. Raises StudyError if the file is
    damaged."""
    file = run.evaluation
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return Evaluation(**{name: arrays[name] for name in ("labels", "probabilities", "wrong", "wrong_images")})
    except (ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        raise StudyError(f"{file} is damaged", hint="restore it from a copy") from None


SHIFT_SEED = 0  # of the simulated shift; the same for all networks, so that they can be compared


def judge_held_out(model: nn.Module, tta: str, ctx: TrainingContext, run: TrialPaths | None = None) -> HeldOut | None:
    """Evaluates on the held-out images, as for a submission. Stores the evaluation beside `run` if there will be none on the
    official test set."""
    if ctx.selected.hold_out is None:
        return None
    images, metric = ctx.dataset.train.only(ctx.selected.hold_out), ctx.settings.study.metric
    both = _clean_and_shifted(model, images, tta, ctx, "evaluating held-out images")
    if run is not None and (ctx.dataset.test is None or ctx.spec.include_test_labels):
        write_evaluation(run, both[0])
    told: dict[str, float] = {}
    for prefix, judged in zip(("", "shifted_"), both, strict=True):
        told[f"{prefix}accuracy"] = judged.accuracy
        if metric != "accuracy":
            told[f"{prefix}score"] = judged.score(metric)
        if images.groups is not None:
            told[f"{prefix}effective_images"] = round(effective_images(judged.predicted == judged.labels, images.groups), 1)
    return HeldOut(images=len(images), **told)


def _clean_and_shifted(
    model: nn.Module, images: ImageSet, tta: str, ctx: TrainingContext, what: str
) -> tuple[Evaluation, Evaluation]:
    """The evaluation on the images, and on the same ones under a simulated shift."""
    changed = shifted(images, None, SHIFT_SEED)
    clean = judge(model, ctx.place(images), images, tta, ctx.progress, what)
    return clean, judge(model, ctx.place(changed), changed, tta, ctx.progress, f"{what} under a simulated shift")


def judge_test(model: nn.Module, tta: str, run: TrialPaths, ctx: TrainingContext) -> dict[str, float]:
    """The fields of a card with the scores on the official test set; no other code evaluates it. Stores the evaluation in the
    run's folder. Empty if there is no test set."""
    test = ctx.dataset.test
    if test is None:
        return {}
    what = "evaluating test images"
    judged, under_shift = _clean_and_shifted(model, test, tta, ctx, what)
    plain = judged if tta == "none" else judge(model, ctx.place(test), test, "none", ctx.progress, what)
    write_evaluation(run, judged)
    return {
        "test_images": len(test),
        "test_accuracy": plain.accuracy,
        "test_accuracy_tta": judged.accuracy,
        "test_balanced_accuracy": judged.score("balanced_accuracy"),
        "test_macro_f1": judged.score("macro_f1"),
        "test_shifted_accuracy": under_shift.accuracy,
    }

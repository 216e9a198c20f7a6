"""What a training leaves in its folder: its checkpoint, written whole or not at all, and its curve, metrics.jsonl."""

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nas.config import MetricName
from nas.device import out_of_memory
from nas.errors import StudyError
from nas.files import write_whole

# Raise when what a training saves changes, so that a checkpoint of an older version is not taken for one of this.
FORMAT = 3

Found = Literal["none", "whole", "damaged", "mismatched"]
"""What lay where a checkpoint was looked for. A mismatched one is of another training or of an older version."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Tensors, numbers, strings, lists and dicts only. A crash leaves the previous checkpoint."""
    # Through memory, since torch's own writer turns a full disk into an error that says nothing of it.
    buffer = io.BytesIO()
    torch.save({**state, "format": FORMAT}, buffer)
    with buffer.getbuffer() as content:  # released also if the disk is full
        write_whole(path, content)


def load_checkpoint(path: Path, identity: str) -> tuple[dict[str, Any] | None, Found]:
    """The state saved for this `identity` (what is trained, and how), and what was found; None unless it is whole and of this
    training. Runs nothing that the file contains. What is whole but does not fit in memory raises."""
    if not path.exists():
        return None, "none"
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # checks every checksum, which torch does not
                return None, "damaged"
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # there are bytes that make the readers raise almost anything
        if out_of_memory(error):
            raise
        return None, "damaged"
    if not isinstance(state, dict) or state.get("identity") != identity or state.pop("format", 1) != FORMAT:
        return None, "mismatched"
    return state, "whole"


def trained_weights(path: Path, identity: str) -> tuple[dict[str, Tensor] | None, Found]:
    """The averaged weights, or the only ones, with what was found in the checkpoint's place."""
    state, found = load_checkpoint(path, identity)
    return (None if state is None else state["average"].get("averaged", state["model"])), found


@dataclass(frozen=True)
class EpochMetrics:
    """One line of metrics.jsonl. Accuracies are shares in [0, 1], losses mean cross-entropies, in the training loss with
    label smoothing and augmentation. `val_`: of the raw weights, None where nobody asked for it. `ema_val_`: of the averaged
    weights, or the only ones. Both are None where no validation images are set aside."""

    epoch: int  # from 1
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    ema_val_loss: float | None
    ema_val_accuracy: float | None
    lr: float  # at the epoch's last step
    seconds: float  # training and evaluation, without the checkpoint
    images_per_second: float  # training alone
    ema_val_balanced_accuracy: float | None = None  # this and the next are also None in curves from before they were recorded
    ema_val_macro_f1: float | None = None

    def validation(self, metric: MetricName) -> float | None:
        """Of the averaged weights, or the only ones."""
        value: float | None = getattr(self, f"ema_val_{metric}")
        return value


def write_curve(path: Path, curve: list[EpochMetrics]) -> None:
    """Whole each time: whatever is interrupted, no epoch stands there twice."""
    write_whole(path, "".join(json.dumps(asdict(metrics)) + "\n" for metrics in curve).encode())


def read_curve(path: Path) -> list[EpochMetrics]:
    """Empty where there is no file. Raises StudyError where it is damaged."""
    if not path.is_file():
        return []
    try:
        return [EpochMetrics(**json.loads(line)) for line in path.read_bytes().splitlines()]
    except (ValueError, TypeError) as error:
        raise StudyError(f"{path} is damaged: {error}", hint="restore or remove it; only its curve is lost") from None

"""Checkpoints: written whole or not at all, read without running anything they contain."""

import io
import zipfile
from pathlib import Path
from typing import Any, Literal

import torch

from nas.files import write_whole
from nas.train.memory import out_of_memory

# Raise when what a training saves changes, so that a checkpoint of an older version is not taken for one of this.
FORMAT = 3

Found = Literal["none", "whole", "damaged", "mismatched"]
"""What lay where a checkpoint was looked for. A mismatched one is of another training or of an older version."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Tensors, numbers, strings, lists and dicts only. A crash leaves the previous checkpoint."""
    # Through memory, since torch's own writer turns a full disk into an error that says nothing of it.
    buffer = io.BytesIO()
    torch.save({**state, "format": FORMAT}, buffer)
    write_whole(path, buffer.getbuffer())


def load_checkpoint(path: Path, identity: str) -> tuple[dict[str, Any] | None, Found]:
    """The state saved for this `identity` (what is trained, and how), and what was found; None unless it is whole and of this
    training: then it starts again. What is whole but does not fit in memory raises."""
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

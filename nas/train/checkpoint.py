"""Checkpoints: written whole or not at all, read without running anything they contain."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

# Raise when what a training saves changes, so that a checkpoint of an older version is not taken for one of this.
FORMAT = 2


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Tensors, numbers, strings, lists and dicts only. A crash leaves the previous checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    with open(unfinished, "wb") as file:
        torch.save({**state, "format": FORMAT}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def load_checkpoint(path: Path, identity: str) -> dict[str, Any] | None:
    """The state saved for this `identity` (what is trained, and how); None where there is none, or it is damaged, of an older
    version or somebody else's: then training starts again."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # checks every checksum, which torch does not
                return None
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # none there, or bytes that make the readers raise almost anything
        return None
    if not isinstance(state, dict) or state.get("identity") != identity or state.pop("format", 1) != FORMAT:
        return None
    return state

"""Checkpoints: written whole or not at all, read without running anything they contain."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Tensors, numbers, strings, lists and dicts only. A crash leaves the previous checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    with open(unfinished, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def load_checkpoint(path: Path, identity: str) -> dict[str, Any] | None:
    """The state saved for this `identity` (what is trained, and how); None where there is none, or it is damaged or
    somebody else's: then training starts again."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile):
        return None
    if not isinstance(state, dict) or state.get("identity") != identity:
        return None
    return state

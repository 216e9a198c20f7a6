"""Latencies that were measured: in memory, and in a file that outlives a crash, so that a network is timed once."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from nas.config import ArchConfig, Frozen, ImageShape, LatencyConfig, first_problem
from nas.errors import BudgetError

Write = Callable[[Path, bytes], None]

# Raise when what is timed changes, so that a latency of before is not taken for one of now.
_VERSION = 1
_TRAINING_ONLY = ("dropout", "dropout_place", "stochastic_depth", "zero_init", "init", "norm_momentum")
"""Of a network's fields; nothing of them is left at prediction."""


class Measured(Frozen):
    ms: float | None
    """None: too large to run."""
    architecture: str
    latency: str
    """How it was timed, in words."""


_FILE = TypeAdapter(dict[str, Measured])


def latency_key(arch: ArchConfig, shape: ImageShape, latency: LatencyConfig) -> str:
    """Equal for networks that predict by the same operations, timed in the same way; the limit is not part of it."""
    content = [
        _VERSION,
        arch.canonical().model_dump(mode="json", exclude_defaults=True, exclude=set(_TRAINING_ONLY)),
        shape.model_dump(),
        latency.model_dump(exclude={"max_ms"}),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class MeasuredLatencies:
    """Of networks for images of one shape, timed in one way."""

    def __init__(self, shape: ImageShape, latency: LatencyConfig, file: Path | None, write: Write) -> None:
        """Raises BudgetError where `file` cannot be read."""
        self._shape, self._latency, self._file, self._write = shape, latency, file, write
        self._found: dict[str, Measured] = {}
        if file is not None and file.is_file():
            try:
                self._found = _FILE.validate_json(file.read_bytes())
            except (ValidationError, OSError) as error:
                problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
                raise BudgetError(
                    f"{file} cannot be read, which holds the latencies measured so far: {problem}",
                    hint="delete it, and networks that are drawn again are timed again",
                ) from None

    def get(self, arch: ArchConfig) -> float | None:
        """Milliseconds, infinite for a network that is too large to run; None where it was not measured."""
        found = self._found.get(latency_key(arch, self._shape, self._latency))
        if found is None:
            return None
        return math.inf if found.ms is None else found.ms

    def add(self, arch: ArchConfig, ms: float) -> None:
        """Before a study has its folder, measurements wait in memory and are written with the next one."""
        key = latency_key(arch, self._shape, self._latency)
        finite = ms if math.isfinite(ms) else None
        self._found[key] = Measured(ms=finite, architecture=arch.one_line(), latency=self._latency.setting())
        if self._file is not None and self._file.parent.is_dir():
            self._write(self._file, _FILE.dump_json(self._found, indent=1))

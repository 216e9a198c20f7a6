"""What nas logs under the name `nas`, which is silent unless somebody asks; messages and results are no logs."""

import logging
import os
import sys
from typing import Any

from nas.errors import ConfigError, choices_sentence

LEVELS = ("debug", "info", "warning", "error")


class _StandardError(logging.StreamHandler):
    """Writes to what `sys.stderr` is at that moment: a live panel takes its place."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream: Any = sys.stderr
        super().emit(record)


def start_logging(level: str | None = None) -> None:
    """To standard error, from `level` on, else from what NAS_LOG names, if it does. Raises ConfigError for another word."""
    level = level or os.environ.get("NAS_LOG")
    if not level:
        return
    if level.lower() not in LEVELS:
        raise ConfigError(f"NAS_LOG must be a level, but is {level!r}.{choices_sentence(level, LEVELS)}", hint="NAS_LOG=info")
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("nas")
    logger.addHandler(handler)
    logger.setLevel(level.upper())

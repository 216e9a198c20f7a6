"""Exceptions for every error that a user can correct.

The command line prints a `NasError` without a traceback; anything else is a bug in nas and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class NasError(Exception):
    """An error that the user can correct.

    Args:
        message: the rule that was broken, the value that broke it, and the choices there are.
        hint: what to do next, usually a command.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(NasError):
    """An invalid space file, candidate or option."""


class BudgetError(NasError):
    """Nothing fits the budget, or the budget cannot be read."""


class DataError(NasError):
    """A data set that is missing, broken or of another shape than expected."""


class StudyError(NasError):
    """A study that is missing, locked by another process, unfinished or different from what was asked."""


class DeviceError(NasError):
    """A device that this machine does not have."""


def choices_sentence(word: str, choices: Iterable[str]) -> str:
    """` Did you mean 'x'? Choices: x, y.`, behind a sentence that refuses `word`; nothing where there are no choices."""
    known = list(choices)
    if not known:
        return ""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    near = near or [one for one in known if word and word in one][:1]
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"{guess} Choices: {', '.join(known)}."


def one_line(error: BaseException) -> str:
    """`ValueError: the first line of what it says`"""
    text = str(error).strip() or "no reason given"
    return f"{type(error).__name__}: {text.splitlines()[0]}"

"""How functions of the API take the options of a command, and how they show themselves."""

import dataclasses
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rich.console import Console

from nas.display.terminal import TerminalDisplay
from nas.specs.options import Option, options_of, spec_of, with_options

Result = TypeVar("Result")
PathLike = str | os.PathLike[str]


def takes_options(run: Callable[..., Result]) -> Callable[..., Result]:
    """`run` with the options of the spec that its parameter `given` holds, in its signature and its docstring."""
    call = with_options(run, _parameter)
    taken = inspect.signature(call).parameters
    lines = [f"    {known.name}: {known.help}" for known in options_of(spec_of(run)).values() if known.name in taken]
    call.__doc__ = "\n".join([inspect.cleandoc(run.__doc__ or ""), "", "Args:", *lines])
    return call


def _parameter(known: Option) -> inspect.Parameter:
    by_place = known.argument or known.positional
    kind: Any = PathLike if known.path or (known.kind is not str and issubclass(known.kind, os.PathLike)) else known.kind
    annotation = known.type
    if known.many:
        annotation = kind | Sequence[kind]
    elif kind is PathLike:
        annotation = kind | None
    elif known.parse is not None:
        annotation = int | str | Sequence[int] if known.is_tuple else known.type | str
    return inspect.Parameter(
        known.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD if by_place else inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if known.default is dataclasses.MISSING else known.default,
        annotation=annotation,
    )


def plain_display(quiet: bool, log: str | None = None) -> TerminalDisplay:
    """Lines on standard output, as a command writes them where there is no terminal; none with `quiet`."""
    console = Console(file=sys.stdout, force_terminal=False, force_jupyter=False, highlight=False)
    return TerminalDisplay(console, quiet=quiet, log=log)

"""Options of a command: their description, how a text is parsed, and functions that take the options of a spec."""

import dataclasses
import functools
import inspect
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from nas.errors import ConfigError

Spec = TypeVar("Spec")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Option:
    """Metadata of a field that a user may set."""

    name: str
    type: Any  # of the field
    default: Any  # as a user types it; `dataclasses.MISSING` if it is required
    help: str
    alias: str | None = None  # a second flag
    argument: bool = False  # positional on the command line and in Python
    positional: bool = False  # positional in Python only
    parse: Callable[[Any], Any] | None = None  # parses a text such as `1h30m`; returns parsed values unchanged
    path: bool = False  # a path, made absolute
    complete: str | None = None  # completion in the shell: a key of `nas.cli.options.CHOICES`
    min: float | None = None
    max: float | None = None
    metavar: str | None = None
    remembered: bool = True  # whether the study stores it; otherwise the command that resumes has to repeat it

    @property
    def optional(self) -> bool:
        return NoneType in get_args(self.type)

    @property
    def is_tuple(self) -> bool:
        return get_origin(self.type) is tuple

    @property
    def kind(self) -> Any:
        """The type of one value: Path for paths, str for a text that is parsed, str for `int | str`."""
        if self.is_tuple:
            return str if self.parse else get_args(self.type)[0]
        kinds = set(get_args(self.type) if isinstance(self.type, UnionType) else [self.type]) - {NoneType}
        return Path if self.path else str if self.parse or str in kinds else kinds.pop()

    @property
    def many(self) -> bool:
        """Whether it may be repeated."""
        return self.is_tuple and self.parse is None

    def read(self, value: Any) -> Any:
        """The value of the field. Raises ConfigError."""
        if self.parse is not None:
            return self.parse(value)
        if self.many:
            values = [value] if isinstance(value, str | os.PathLike) else value
            return tuple(Path(one) if self.kind is Path else one for one in values)
        if self.kind is Path and isinstance(value, str | os.PathLike):  # a script may give images themselves
            return os.path.abspath(value) if self.path else Path(value)
        return os.fspath(value) if isinstance(value, os.PathLike) else value


def option(default: Any, help: str, *, text: str | None = None, name: str | None = None, **how: Any) -> Any:
    """A field of a spec. `text`: its default as a user types it; `name`: if it differs from the field; `how`: as in `Option`."""
    shown = {"default": default if text is None else text, "help": help, **how}
    return dataclasses.field(default=default, metadata={"option": shown, "name": name})


def argument(default: Any, help: str, **how: Any) -> Any:
    return option(default, help, argument=True, **how)


@functools.cache
def options_of(spec: Any) -> dict[str, Option]:
    """Options by field: the spec's own first, then those that it shares with other specs."""
    fields = [field for field in dataclasses.fields(spec) if "option" in field.metadata]
    types = get_type_hints(spec)
    return {
        field.name: Option(field.metadata["name"] or field.name, types[field.name], **field.metadata["option"])
        for field in sorted(fields, key=lambda field: field.kw_only is True)
    }


def said_again(spec: Any) -> str:
    """Options that a study does not store, as typed: ` --workers 4`; empty if all have their defaults."""
    said = {known.name: (getattr(spec, field), known) for field, known in options_of(spec.__class__).items()}

    def text(value: Any, known: Option) -> str:
        if known.metavar == "FLOP":
            from nas.config import flop_word

            return flop_word(value)
        return f"{value:g}" if isinstance(value, float) else str(value)

    return "".join(
        f" --{name.replace('_', '-')} {text(value, known)}"
        for name, (value, known) in said.items()
        if not known.remembered and value != known.default
    )


# ---------------------------------------------------------------------------------------- functions that take a spec's options


@dataclass(frozen=True)
class Given(Generic[Spec]):
    """The options that were given, parsed, by field."""

    spec: type[Spec]
    values: dict[str, Any]

    def __getattr__(self, field: str) -> Any:
        """None if it was not given."""
        return self.values.get(field)

    def build(self, **rest: Any) -> Spec:
        """The spec. `rest`: fields that are not options, or that were parsed elsewhere. Other fields have their defaults."""
        return self.spec(**self.values | rest)


def spec_of(run: Callable) -> Any:
    """The spec of its parameter `given`."""
    return get_args(inspect.signature(run).parameters["given"].annotation)[0]


def with_options(run: Callable[..., Result], parameter: Callable[[Option], inspect.Parameter]) -> Callable[..., Result]:
    """`run`, whose parameter `given: Given[…]` is replaced by one parameter for each option of that spec. A parameter of `run`
    replaces the option with the same name."""
    signature = inspect.signature(run)
    own = dict(signature.parameters)
    spec = spec_of(run)
    options = {known.name: (field, known) for field, known in options_of(spec).items() if known.name not in own}
    spread = [parameter(known) for _, known in options.values()]
    parameters = [one for name, kept in own.items() for one in (spread if name == "given" else [kept])]
    taken = signature.replace(parameters=sorted(parameters, key=lambda parameter: parameter.kind))

    @functools.wraps(run)
    def call(*args: Any, **values: Any) -> Result:
        bound = taken.bind(*args, **values)
        bound.apply_defaults()
        rest = bound.arguments
        read = {field: (known, rest.pop(name)) for name, (field, known) in options.items()}
        given = {field: known.read(value) for field, (known, value) in read.items() if value is not None}
        return run(given=Given(spec, given), **rest)

    call.__signature__ = taken  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": signature.return_annotation}
    return call


# --------------------------------------------------------------------------------------------------------- how texts are read

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_duration(time: float | str) -> float:
    """Seconds of `90`, `90s`, `15m`, `1h30m`. Raises ConfigError."""
    if not isinstance(time, str):
        return time
    match = _DURATION.fullmatch(time.strip())
    if match is None or not any(match.groups()):
        raise ConfigError(f"invalid time {time!r}", hint="write it as 90s, 15m or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def parse_timeout(time: float | str) -> float:
    """Seconds above 0. Raises ConfigError."""
    seconds = parse_duration(time)
    if seconds <= 0:
        raise ConfigError(f"--timeout must be above 0 seconds, but got {time}", hint="the default is --timeout 60s")
    return seconds


def parse_count(count: int | str) -> int:
    """`5M`, `300k`. Raises BudgetError."""
    from nas.config import parse_count  # which takes pydantic with it

    return parse_count(count)


def parse_flop(flop: float | str) -> float:
    """Operations of `2PFLOP`, `300TFLOP`. Raises BudgetError."""
    from nas.config import parse_flop

    return parse_flop(flop)


def parse_validation(images: float | str) -> float | int:
    """`5000` images, or `0.1`, a share of them. Raises ConfigError."""
    try:
        number = float(images)
    except ValueError:
        number = 0.0
    if 0 < number < 1:
        return number
    if number < 1 or not number.is_integer():
        raise ConfigError(
            f"--validation takes a number of training images, such as 5000, or a share of them, such as 0.1, but got {images!r}",
            hint="--validation 0.1",
        )
    return int(number)


def parse_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """`healthy,rust,scab`."""
    return tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else tuple(names)


def parse_seeds(seeds: int | str | Sequence[int], first: int = 0) -> tuple[int, ...]:
    """`3`: three seeds, counted from `first`; `0,3,4`: these seeds. Raises ConfigError."""
    if not isinstance(seeds, int | str):
        if len(seeds) == 1:
            return tuple(seeds)
        seeds = ",".join(map(str, seeds))
    text = str(seeds)
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or (len(parts) == 1 and not int(parts[0])):
        raise ConfigError(
            f"--seeds takes a number of seeds or a list of seeds, but got {text!r}", hint="--seeds 3, or --seeds 0,3,4"
        )
    if len(parts) == 1:
        return tuple(range(first, first + int(parts[0])))
    listed = [int(part) for part in parts]
    if first and first not in listed:
        raise ConfigError(f"--seed {first} contradicts --seeds {text}", hint="leave --seed out")
    if repeated := sorted({seed for seed in listed if listed.count(seed) > 1}):
        raise ConfigError(
            f"--seeds {text} repeats {', '.join(map(str, repeated))}: the same seed would train the same network again",
            hint=f"--seeds {','.join(map(str, dict.fromkeys(listed)))}, or --seeds {len(listed)} for different ones",
        )
    return tuple(listed)

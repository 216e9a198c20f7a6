"""The most that a network may cost, and how such limits are written."""

import math
import platform
import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from nas.config.frozen import Frozen
from nas.errors import BudgetError, choices_sentence

LIMIT_NAMES = {
    "params": "parameters",
    "flash": "bytes of flash",
    "ram": "bytes of RAM",
    "memory": "bytes of activations",
    "macs": "MACs",
    "latency": "ms",
}
"""The fields of `BudgetConfig`, cheapest to find out first, and what an amount of each is counted in."""

MOST = 10**18  # of any amount: no network has so much, and more is no number of 64 bits
_NUMBER = r"([0-9][0-9_]*\.?[0-9]*)\s*"
_COUNT = re.compile(_NUMBER + r"([kKmMbBgG]?)")
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000, "g": 1_000_000_000}
_BYTES = re.compile(_NUMBER + r"((?:[kKmMgG]i?)?[bB])?")
_BYTE_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_count(text: str | int) -> int:
    """`5M`, `300k`, `1.5M`, `5_000_000` or a whole number above 0. Raises BudgetError."""
    rule, hint = "a count is a whole number above 0, such as 5M, 300k or 5_000_000", "for example --max-params 5M"
    return _parse(text, _COUNT, _UNITS, rule, hint)


def parse_bytes(text: str | int) -> int:
    """`512kB`, `1.5MB`, `64KiB`, `500_000` or a whole number above 0. Raises BudgetError."""
    rule = "memory is a whole number of bytes above 0, such as 512kB, 2MB, 64KiB or 500_000"
    return _parse(text, _BYTES, _BYTE_UNITS, rule, "for example memory: 512kB; a kB is 1,000 bytes, a KiB 1,024")


_FLOP = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGTPE]?)(?:FLOPs?)?", re.IGNORECASE)


def parse_flop(text: str | float) -> float:
    """Operations: `2PFLOP`, `300 TFLOP`, `1.5e15`. Raises BudgetError."""
    with suppress(ValueError, TypeError):
        if 0 < (value := float(text)) < math.inf and not isinstance(text, bool):
            return value
    match = _FLOP.fullmatch(str(text).strip())
    value = float(match[1]) * 1000.0 ** " kmgtpe".index(match[2].lower() or " ") if match else 0.0
    if value <= 0:
        raise BudgetError(f"compute is a number of operations above 0, such as 2PFLOP or 300TFLOP, but got {text!r}")
    return value


def flop_word(flop: float) -> str:
    """`0.29PFLOP`: one word that `parse_flop` reads."""
    sizes = (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6))
    unit, size = next(((unit, size) for unit, size in sizes if flop >= 0.1 * size), ("", 1.0))
    return f"{flop / size:.15g}{unit}FLOP"


def _parse(text: str | int, pattern: re.Pattern[str], units: dict[str, int], rule: str, hint: str) -> int:
    match = None if isinstance(text, bool) else pattern.fullmatch(str(text).strip())
    if match is None:
        raise BudgetError(f"{rule}, but got {text!r}", hint=hint)
    unit = units[match[2].lower()] if match[2] else 1
    value = Decimal(match[1].replace("_", "")) * unit  # 1.005 × 10⁶ is no whole number in binary
    if value < 1 or value != round(value):
        raise BudgetError(f"{rule}, but got {text!r}", hint=hint)
    if value > MOST:
        raise BudgetError(f"{rule}, and at most {MOST:,}", hint=hint)
    return round(value)


def _read_by(parse: Callable[[Any], float]) -> BeforeValidator:
    def read(value: Any) -> float:
        try:
            return parse(value)
        except BudgetError as error:
            raise ValueError(error.message) from None

    return BeforeValidator(read)


Count = Annotated[int, _read_by(parse_count)]
Bytes = Annotated[int, _read_by(parse_bytes)]
Flop = Annotated[float, _read_by(parse_flop)]

RuntimeName = Literal["torch", "onnxruntime"]
CommandFormat = Literal["onnx", "onnx-int8"]
CHANNEL_BLOCK = 16  # of onnxruntime's layout on x86-64 (NCHWc), with AVX-512; found with 1.32
_DEVICE = re.compile(r"cpu|mps|cuda(:[0-9]+)?")


def _known_device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        raise ValueError(f"must be cpu, cuda, cuda:1 and so on, or mps, but is {name!r}")
    return name


def _has_model(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"must be a valid command line ({error}), but is {command!r}") from None
    if not any("{model}" in word for word in words):
        raise ValueError(f"must have {{model}} where the program reads the path of the network's file, but is {command!r}")
    return command


class LatencyConfig(Frozen):
    """The most time that a forward pass may take, and how it is measured."""

    max_ms: Annotated[float, Field(gt=0.0, strict=True)]  # milliseconds of one forward pass of a whole batch
    runtime: RuntimeName | None = None  # what runs the network on this machine
    command: Annotated[str, AfterValidator(_has_model)] | None = None
    """Or your own program that runs it, on a board for example, and prints the milliseconds as the last number of its last line;
    {model} stands for the path of an ONNX file. It replaces `runtime`, `device` and `threads`."""
    format: CommandFormat = "onnx"  # of the command's file: float32, or eight bits with ranges measured on noise
    timeout: Annotated[float, Field(gt=0.0, strict=True)] = 60.0  # seconds that the command may take
    device: Annotated[str, AfterValidator(_known_device)] = "cpu"  # cpu, mps, cuda, cuda:1, …
    threads: Annotated[int, Field(ge=1, strict=True)] = 1  # CPU threads
    batch: Annotated[int, Field(ge=1, strict=True)] = 1  # images in a forward pass

    @model_validator(mode="before")
    @classmethod
    def _names_its_keys(cls, value: Any) -> Any:
        example = f"for example {{max_ms: 5, runtime: torch}}; runtime is one of {', '.join(get_args(RuntimeName))}"
        by = [key for key in ("runtime", "command") if isinstance(value, dict) and value.get(key) is not None]
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"must have the time and the runtime, {example}, but is {value!r}")
        for key in value:
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {key!r}.{choices_sentence(str(key), cls.model_fields)}")
        if "max_ms" not in value:
            raise ValueError(f"max_ms is missing; {example}")
        if len(by) != 1:
            raise ValueError(
                f"{'runtime and command are both there, but one is needed' if by else 'runtime is missing'}; {example}"
            )
        return value

    @model_validator(mode="after")
    def _runs_there(self) -> Self:
        if self.runtime == "onnxruntime" and self.device == "mps":
            raise ValueError("runtime onnxruntime runs on cpu or cuda, but device is 'mps'")
        if self.command is None and self.format != "onnx":
            raise ValueError(f"format {self.format} is only for a command, because runtime {self.runtime} runs in float32")
        return self

    @property
    def computes_in_blocks(self) -> bool:
        """Whether channels up to the next multiple of `CHANNEL_BLOCK` take no more time."""
        return self.runtime == "onnxruntime" and self.device == "cpu" and platform.machine() in ("x86_64", "AMD64")

    def __str__(self) -> str:
        return f"{self.max_ms:g} ms by {self.setting()}"

    def setting(self) -> str:
        """All but the limit: `torch on cpu, 1 thread, batch 1`."""
        if self.command is not None:
            return f"{self.command}{' in int8' * (self.format == 'onnx-int8')}, batch {self.batch}"
        return f"{self.runtime} on {self.device}, {self.threads} thread{'s' * (self.threads > 1)}, batch {self.batch}"


class BudgetConfig(Frozen):
    """The limits of a network; at least one."""

    params: Count | None = None  # maximum number of parameters, counted by fvcore
    macs: Count | None = None
    """Maximum MACs of one image's forward pass, counted by fvcore, including BatchNorm, pooling and resizing. `nas check` also
    shows the MACs of convolutions and other products alone, as most papers count them."""
    uncounted: Literal["refuse", "allow"] = "refuse"
    """If MACs are limited: refuse or allow a block of your own with operations that fvcore cannot count, such as an LSTM's;
    `nas` names them."""
    memory: Bytes | None = None
    """Maximum bytes of float32 activations that one image's forward pass needs at the same time, without weights: a lower bound
    of what a runtime needs (as for microcontrollers: MCUNet, arXiv 2007.10319)."""
    flash: Bytes | None = None
    """Maximum bytes of the network's file in eight bits on a microcontroller: one byte per weight, with scales, biases and
    metadata (names of tensors, operators). The program that runs it needs more."""
    ram: Bytes | None = None
    """Maximum bytes of RAM that TensorFlow Lite Micro needs for the network in eight bits: activations of one image, and the
    interpreter's own data."""
    latency: LatencyConfig | None = None  # maximum time of a forward pass, measured

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not self.limited():
            choices = ", ".join(LIMIT_NAMES)
            raise ValueError(f"must have at least one limit of {choices}, for example {{params: 5M}}")
        return self

    def limited(self) -> dict[str, float]:
        """The limits that are set, cheapest to check first; for latency the value is `max_ms`."""
        limits = {name: getattr(self, name) for name in LIMIT_NAMES}
        return {
            name: limit.max_ms if isinstance(limit, LatencyConfig) else limit
            for name, limit in limits.items()
            if limit is not None
        }

    def counted(self) -> "BudgetConfig":
        """A copy without the latency limit, which has to be measured; it may have no limit."""
        return self.model_copy(update={"latency": None})

    def describe(self) -> str:
        """`5,000,000 parameters, 5 ms by torch on cpu, 1 thread, batch 1`"""
        return ", ".join(self.parts())

    def parts(self) -> list[str]:
        """Each limit in words."""
        return [str(self.latency) if name == "latency" else amount(name, limit) for name, limit in self.limited().items()]


def amount(limit: str, value: float) -> str:
    """`300,000 parameters`, `5.000 ms`"""
    return f"{value:,.3f} ms" if limit == "latency" else f"{value:,} {LIMIT_NAMES[limit]}"

"""What every description is: an immutable object, read from and written to JSON; its errors say in one line what is
wrong with a key."""

from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nas.errors import ConfigError

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]

Model = TypeVar("Model", bound=BaseModel)


class Frozen(BaseModel):
    """A value object: hashable, comparable, refusing keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> str:
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "the JSON text") -> Self:
        """Raises ConfigError, naming `source` and the key, where the text does not describe such an object."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ConfigError(f"{source}: {first_problem(error)}") from None

    @classmethod
    def from_file(cls, file: Path) -> Self:
        """Raises ConfigError also where it cannot be read."""
        try:
            text = file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}", hint="restore it from a copy") from None
        return cls.from_json(text, source=str(file))


def first_problem(error: ValidationError) -> str:
    """The first problem of a pydantic error as `key: what is wrong (value)`."""
    key = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
    return f"{key}: {what_is_wrong(error)}" if key else what_is_wrong(error)


def what_is_wrong(error: ValidationError, note: str = "") -> str:
    """The first problem of a pydantic error without its key; `note` goes beside the value."""
    problem = error.errors(include_url=False)[0]
    message = problem["msg"].removeprefix("Value error, ")
    for theirs, ours in (("Input should", "must"), ("Tuple should", "must"), (" after validation", ""), ("valid tuple", "list")):
        message = message.replace(theirs, ours)
    match problem["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            message = "unknown key"
        case "value_error" | "json_invalid":  # the first are ours and name the value, the other would quote the whole file
            return f"{message[:1].lower()}{message[1:]}{note}"
    value = repr(problem["input"])
    shown = value if len(value) <= 80 else f"{value[:80]}…"
    return f"{message[:1].lower()}{message[1:]} (got {shown}{note})"


def with_defaults(config: Model, unused: dict[str, bool]) -> Model:
    """A copy with the fields in `unused` reset to their defaults."""
    fields = type(config).model_fields
    return config.model_copy(update={name: fields[name].default for name, is_unused in unused.items() if is_unused})

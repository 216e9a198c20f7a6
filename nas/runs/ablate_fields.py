"""What can be varied: every field of a network and its training, by its name, with values as they are typed.

Values are text here. A field of the stages has one value for each stage, `2-3-2`, or one for all; the parts of a list are joined
in the same way.
"""

import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from nas.config import (
    ArchConfig,
    AugmentConfig,
    BlockName,
    Candidate,
    Frozen,
    StageConfig,
    StemConfig,
    TrainConfig,
    what_is_wrong,
)
from nas.errors import ConfigError, choices_sentence

GROUPS: dict[str, tuple[type[Frozen], tuple[str, ...], str]] = {
    "train": (TrainConfig, ("train",), "of the training"),
    "augment": (AugmentConfig, ("train", "augment"), "of the augmentation"),
    "arch": (ArchConfig, ("arch",), "of the network"),
    "stage": (StageConfig, ("arch", "stages"), "of each stage"),
    "stem": (StemConfig, ("arch", "stem"), "of the stem"),
}
"""By the prefix of a field's name: the configuration that holds the field, its place in a candidate, and words for messages. A
name without a prefix belongs to the first configuration that has it."""
WHOLES = ("augment", "stages", "stem")  # fields that hold other fields
SOURCE = "block_source"  # the text of a user's own block: it cannot be typed, and goes with the block
_STAGE = re.compile(r"stage([0-9]+)")
_JOINT = re.compile(r"(?<![0-9.][eE])-")  # not the sign of an exponent


@dataclass(frozen=True)
class Field:
    group: str
    key: str
    stage: int | None = None  # From 0; None for all stages, and for fields of no stage

    @property
    def name(self) -> str:
        """The shortest unique name: with the prefix only if an earlier configuration has a field of this name."""
        if self.stage is not None:
            return f"stage{self.stage}.{self.key}"
        return self.key if BARE[self.key] == self.group else f"{self.group}.{self.key}"

    @property
    def annotation(self) -> Any:
        return GROUPS[self.group][0].model_fields[self.key].annotation

    def overlaps(self, other: "Field") -> bool:
        """Whether both set the same value of some network."""
        same = (self.group, self.key) == (other.group, other.key)
        return same and (self.stage == other.stage or None in (self.stage, other.stage))


def _fields() -> Iterator[tuple[str, str]]:
    for group, (model, _, _) in GROUPS.items():
        for key in model.model_fields:
            if key not in (*WHOLES, SOURCE):
                yield group, key


BARE: dict[str, str] = {}  # the configuration that a name without a prefix belongs to
for _group, _key in _fields():
    BARE.setdefault(_key, _group)


def find_field(name: str, option: str) -> Field:
    """`lr`, `augment.policy`, `stem.kernel`, `stage0.channels`. Raises ConfigError with the choices."""
    group, _, key = name.rpartition(".")
    stage = None
    if match := _STAGE.fullmatch(group):
        group, stage = "stage", int(match[1])
    if not group:
        group = BARE.get(key, "")
    if group in GROUPS and (group, key) in set(_fields()):
        return Field(group, key, stage)
    if name in WHOLES:
        inner = "stage" if name == "stages" else name
        keys = ", ".join(GROUPS[inner][0].model_fields)
        hint = "the number of stages cannot change" if name == "stages" else f"for example {inner}.{keys.split(', ')[0]}"
        raise ConfigError(f"{option} {name} is not a single value; its fields are {keys}", hint=hint)
    near = _guess(name, [*BARE, *(f"{g}.{k}" for g, k in _fields())])
    listed = "; ".join(
        f"{of}: {', '.join(Field(group, key).name for g, key in _fields() if g == group)}" for group, (_, _, of) in GROUPS.items()
    )
    raise ConfigError(
        f"{option} {name}: unknown field.{near}",
        hint=f"the fields: {listed}; stage0.channels and so on are fields of one stage",
    )


def _guess(word: str, choices: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing."""
    return choices_sentence(word, choices).partition("Choices: ")[0].rstrip()


def value_text(candidate: Candidate, field: Field) -> str:
    """The field's value in the candidate, as text."""
    if field.group == "stage":
        values = [_text(getattr(stage, field.key)) for stage in candidate.arch.stages]
        return "-".join(values) if field.stage is None else values[field.stage]
    part: Any = candidate
    for step in GROUPS[field.group][1]:
        part = getattr(part, step)
    return _text(getattr(part, field.key))


def _text(value: Any) -> str:
    if isinstance(value, bool | None):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")  # reads back as the same number
    return "-".join(map(_text, value)) if isinstance(value, tuple) else str(value)


def changed(candidate: Candidate, values: Mapping[Field, str], option: str) -> Candidate:
    """The candidate with these values. Raises ConfigError for a value that its field refuses."""
    tree = candidate.model_dump()
    for field, text in values.items():
        _put(tree, field, text, option)
    try:
        return Candidate.model_validate(tree)
    except ValidationError as error:
        said = " ".join(f"{field.name}={text}" for field, text in values.items())
        raise ConfigError(f"{option} {said}: {_problem(error, values)}") from None


def _put(tree: dict[str, Any], field: Field, text: str, option: str) -> None:
    part: Any = tree
    for step in GROUPS[field.group][1]:
        part = part[step]
    if field.key == "block" and text in get_args(BlockName):
        part[SOURCE] = None
    if field.group != "stage":
        is_list = get_origin(field.annotation) is tuple
        part[field.key] = [_scalar(field, one) for one in _JOINT.split(text)] if is_list else _scalar(field, text)
        return
    count = len(part)
    if field.stage is not None and field.stage >= count:
        stages = ", ".join(f"stage{number}" for number in range(count))
        raise ConfigError(
            f"{option} {field.name}: the network has {count} stage{'s' * (count > 1)}", hint=f"choose from {stages}"
        )
    texts = _JOINT.split(text) if field.stage is None else [text]
    chosen = range(count) if field.stage is None else [field.stage]
    if len(texts) == 1:
        texts *= len(chosen)
    if len(texts) != len(chosen):
        example = "-".join([texts[0] or "2"] * count)
        raise ConfigError(
            f"{option} {field.name}={text} has values for {len(texts)} stages, but the network has {count}",
            hint=f"give a value for each stage, {field.name}={example}, or one for all stages, {field.name}={texts[0] or 2}",
        )
    for number, one in zip(chosen, texts, strict=True):
        part[number][field.key] = _scalar(field, one)


def _scalar(field: Field, text: str) -> Any:
    """As pydantic reads it from YAML: as a number if possible, because the choices of some fields are numbers."""
    if text.lower() == "none" and get_origin(field.annotation) in (Union, types.UnionType):
        return None
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _problem(error: ValidationError, values: Mapping[Field, str]) -> str:
    problem = error.errors(include_url=False)[0]
    sentence = what_is_wrong(error)
    field = next((field for field in values if field.key in problem["loc"]), None)
    if problem["type"] == "literal_error" and field is not None and get_origin(field.annotation) is Literal:
        near = _guess(str(problem["input"]), map(str, get_args(field.annotation)))
        return f"{sentence}.{near}" if near else sentence
    return sentence

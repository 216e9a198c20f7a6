"""From a space file's YAML to the slots of a `Space`, and the presets: spaces in which everything is fixed.

Refuses what means nothing: every ConfigError names the file, the key and the rule.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from nas.config import (
    MOST_STAGES,
    ArchConfig,
    AugmentConfig,
    BlockName,
    BlockSource,
    BudgetConfig,
    Candidate,
    ImageShape,
    StageConfig,
    StemConfig,
    StudyConfig,
    TrainConfig,
    what_is_wrong,
)
from nas.errors import ConfigError, choices_sentence
from nas.models.user_code import FindFile, read_blocks
from nas.paths import PRESET, shipped_file
from nas.space.space import FILL, Reported, Slot, Space
from nas.space.yaml_file import own_file, read_text, read_yaml, require_shipped, with_british_keys

VERSION = 1
TOP_KEYS = ("version", "budget", "fit", "images", "reported", "study", "blocks", "arch", "train")
CIFAR10 = ImageShape(channels=3, size=32, classes=10)
"""The images that a space is meant for unless it says otherwise, and those of the reports."""
MOST_STEPS = 1_000_000
LARGEST = 2**53  # of the ends of whole ranges: Optuna computes in float64
_DOMAIN_KEYS = {
    "int": ("low", "high", "log", "step"),
    "float": ("low", "high", "log", "step"),
    "categorical": ("choices",),
}
_NESTED: dict[str, type[BaseModel]] = {"stem": StemConfig, "augment": AugmentConfig}


def load_space(name_or_path: str) -> Space:
    """A shipped space by its name, or any file by its path. Raises ConfigError."""
    path = own_file(name_or_path, "space") or require_shipped("space", name_or_path)
    return read_space(read_text(path), source=str(path), name=path.stem, find_file=lambda file: path.parent / file)


def read_space(text: str, source: str, name: str, find_file: FindFile = Path) -> Space:
    """Reads and checks a space file; `find_file` says where the Python files lie that it names. Runs none of their code. Every
    ConfigError names `source` and the key."""
    return _Reader(source, find_file).space(read_yaml(text, source), text, name)


@dataclass(frozen=True)
class Preset:
    """A reported network, `search_spaces/presets/<name>.yaml`."""

    name: str
    candidate: Candidate
    budget: BudgetConfig  # what the report's authors had to keep to
    reported: Reported


def load_preset(name: str) -> Preset:
    """`name` with or without its prefix `preset:`. Raises ConfigError with the names there are."""
    name = name.removeprefix(PRESET)
    path = require_shipped("preset", name)
    space = read_space(read_text(path), source=str(path), name=name)
    if drawn := [slot.name for slot in space.slots if slot.drawn]:
        raise ConfigError(
            f"{path}: a preset must fix every value, but has ranges for {', '.join(drawn)}", hint="give each one value"
        )
    if space.reported is None:
        raise ConfigError(
            f"{path}: reported: is missing; a preset needs the reported accuracy of its network",
            hint="for example  reported: {accuracy: 0.93, measured_on: test, params: 4479946}",
        )
    candidate = space.candidate({slot.name: slot.domain for slot in space.slots})
    return Preset(name, candidate, space.budget, space.reported)


Plain = TypeVar("Plain", bound=BaseModel)


class _Reader:
    """Turns the tree of a space file into slots; knows the file's name for its errors."""

    def __init__(self, source: str, find_file: FindFile) -> None:
        self.source, self.find_file = source, find_file
        self.blocks: Mapping[str, BlockSource] = {}
        self.hint = f"compare {shipped_file('space', 'resnet')}"

    def fail(self, key: str, sentence: str) -> ConfigError:
        return ConfigError(f"{self.source}: {key}: {sentence}", hint=self.hint)

    def mapping(self, value: Any, key: str, known: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(key, f"must be a mapping of keys to values, but is {value!r}")
        prefix = "" if key == "the file" else f"{key}."
        for found in value:
            if found not in known:
                raise self.fail(f"{prefix}{found}", f"unknown key.{choices_sentence(str(found), known)}")
        return value

    def space(self, tree: Any, text: str, name: str) -> Space:
        top = self.mapping(tree, "the file", TOP_KEYS)
        if top.get("version") != VERSION or isinstance(top["version"], bool):
            raise self.fail("version", f"must be {VERSION}, the only version, but is {top.get('version')!r}")
        if "arch" not in top:
            raise self.fail("arch", "is missing; it describes the networks")
        if "budget" not in top:
            raise self.fail("budget", "is missing; for example  budget: {params: 5M}")
        budget = self.as_it_stands(top["budget"], "budget", BudgetConfig)
        images = self.as_it_stands(top["images"], "images", ImageShape) if "images" in top else CIFAR10
        reported = self.as_it_stands(top["reported"], "reported", Reported) if "reported" in top else None
        self.blocks = read_blocks(top.get("blocks", []), self.find_file, self.fail)
        slots = [*self.arch_slots(top["arch"]), *self.train_slots(top.get("train", {}))]
        used = next((slot.ends() for slot in slots if slot.name == "block"), [])
        for block in self.blocks:
            if block not in used:
                raise self.fail("blocks", f"{block} is not among the values of arch.block, so no network would use it")
        if "fit" in top:
            slots.append(self.fit_slot(top["fit"], budget))
        study = self.as_it_stands(top.get("study", {}), "study", StudyConfig)
        space = Space(name, text, budget, tuple(slots), images, reported, study, self.blocks)
        space.check_combinations(self.source, self.hint)
        return space

    def as_it_stands(self, tree: Any, key: str, model: type[Plain]) -> Plain:
        """A mapping in which nothing is drawn."""
        try:
            return model.model_validate(self.mapping(tree, key, model.model_fields))
        except ValidationError as error:
            where = error.errors(include_url=False)[0]["loc"]
            raise self.fail(".".join([key, *map(str, where)]), what_is_wrong(error)) from None

    def arch_slots(self, tree: Any) -> list[Slot]:
        known = [k for k in ArchConfig.model_fields if k not in ("stages", "block_source")]
        tree = self.mapping(tree, "arch", ["stages", "stage", *known])
        for needed in ("stages", "stage"):
            if needed not in tree:
                raise self.fail(f"arch.{needed}", "is missing; `stages` is their number and `stage` the ranges of each")
        stages = Slot("stages", ("arch", "stages"), self.domain(tree["stages"], "arch.stages", TypeAdapter(int)))
        if bad := [number for number in stages.ends() if not 1 <= number <= MOST_STAGES]:
            raise self.fail("arch.stages", f"a network has 1 to {MOST_STAGES} stages, not {bad[0]!r}")
        most, slots = max(stages.ends()), [stages]
        per_stage = self.mapping(tree["stage"], "arch.stage", StageConfig.model_fields)
        for field in ("blocks", "channels"):
            if field not in per_stage:
                raise self.fail(f"arch.stage.{field}", "is missing; each stage needs it")
        for key, value in per_stage.items():
            entries = value if isinstance(value, list) else [value] * most
            if len(entries) != most:
                raise self.fail(
                    f"arch.stage.{key}", f"a list must have one entry for each stage, {most} entries, but has {len(entries)}"
                )
            for i, entry in enumerate(entries):
                label = f"arch.stage.{key}[{i}]" if isinstance(value, list) else f"arch.stage.{key}"
                domain = self.domain(entry, label, _adapter(StageConfig, key))
                slots.append(Slot(f"stage{i}.{key}", ("arch", "stage", i, key), domain))
        rest = {k: v for k, v in tree.items() if k not in ("stages", "stage")}
        return slots + self.section(rest, ArchConfig, ("arch",))

    def fit_slot(self, tree: Any, budget: BudgetConfig) -> Slot:
        """`fit: params` fills the whole budget, `fit: {params: {low: 0.5, high: 1.0}}` a drawn share of it."""
        if tree == "params":
            tree = {"params": 1.0}
        if not isinstance(tree, dict) or not tree:
            raise self.fail(
                "fit",
                f"must be params, to scale the widths to the parameter budget, or {{params: share of them}}, but is {tree!r}",
            )
        share = self.mapping(tree, "fit", ("params",))["params"]
        if self.blocks:
            raise self.fail(
                "fit",
                f"the widths can only be scaled for built-in blocks, not for "
                f"{', '.join(self.blocks)}: leave out fit; candidates over budget are then skipped",
            )
        if budget.params is None:
            raise self.fail("fit", "fit scales the widths to budget.params, which is missing; for example  budget: {params: 5M}")
        if isinstance(share, dict):
            share = {"type": "float"} | share
        field = TypeAdapter(Annotated[float, Field(gt=0.0, le=1.0)])
        return Slot(FILL, ("fit", "params"), self.domain(share, "fit.params", field))

    def train_slots(self, tree: Any) -> list[Slot]:
        if isinstance(tree, dict):
            try:
                tree = with_british_keys(tree)
            except ValueError as error:
                raise self.fail("train", str(error)) from None
        tree = self.mapping(tree, "train", TrainConfig.model_fields)
        slots = self.section(tree, TrainConfig, ("train",))
        for name in ("epochs", "epoch_images", "hardest"):
            if any(slot.name == name and slot.drawn for slot in slots):
                raise self.fail(f"train.{name}", "must be one number: pruning compares candidates epoch by epoch")
        if not any(slot.name == "epochs" for slot in slots):
            slots.append(Slot("epochs", ("train", "epochs"), TrainConfig.model_fields["epochs"].default))
        return slots

    def section(self, tree: dict[str, Any], model: type[BaseModel], path: tuple[str, ...]) -> list[Slot]:
        """Slots of a mapping whose keys are fields of `model`; `stem` and `augment` are mappings of their own."""
        slots = []
        for key, value in tree.items():
            inner = (*path, key)
            label = ".".join(inner)
            if key in _NESTED:
                slots += self.section(self.mapping(value, label, _NESTED[key].model_fields), _NESTED[key], inner)
            else:
                blocks: Any = Literal[(*get_args(BlockName), *self.blocks)]  # ours, and those of the user's own files
                field = TypeAdapter(blocks) if inner == ("arch", "block") else _adapter(model, key)
                slots.append(Slot(".".join(inner[1:]), inner, self.domain(value, label, field)))
        return slots

    def domain(self, value: Any, key: str, field: TypeAdapter[Any]) -> Any:
        """The distribution that a mapping describes, or the fixed value that stands in its place."""
        takes_list = field.core_schema["type"] == "tuple"
        if takes_list and isinstance(value, list):
            value = tuple(value)
        if not isinstance(value, dict):
            if isinstance(value, list) and not takes_list:
                raise self.fail(key, f"a list is not a value; to choose from it write {{type: categorical, choices: {value}}}")
            return self.valid(value, key, field)
        if takes_list:
            raise self.fail(key, "must be one list of numbers, such as [0.5, 0.75], not a range")
        if "type" not in value:
            raise self.fail(f"{key}.type", f"is missing; a range is one of {', '.join(_DOMAIN_KEYS)}")
        kind = value["type"]
        if not isinstance(kind, str) or kind not in _DOMAIN_KEYS:
            raise self.fail(f"{key}.type", f"{kind!r} is not a type of range.{choices_sentence(str(kind), _DOMAIN_KEYS)}")
        self.mapping(value, key, ("type", *_DOMAIN_KEYS[kind]))
        return self.categorical(value, key, field) if kind == "categorical" else self.numeric(value, key, field, kind)

    def categorical(self, value: dict[str, Any], key: str, field: TypeAdapter[Any]) -> CategoricalDistribution:
        choices = value.get("choices")
        if not isinstance(choices, list) or not choices:
            raise self.fail(f"{key}.choices", f"must be a list of at least one value, but is {choices!r}")
        read = [self.valid(choice, f"{key}.choices[{i}]", field) for i, choice in enumerate(choices)]
        if len({json.dumps(c) for c in read}) < len(read):
            raise self.fail(f"{key}.choices", f"names a value twice: {choices!r}")
        return CategoricalDistribution(read)

    def numeric(self, value: dict[str, Any], key: str, field: TypeAdapter[Any], kind: str) -> BaseDistribution:
        read = int if kind == "int" else float
        for needed in ("low", "high"):
            if needed not in value:
                raise self.fail(f"{key}.{needed}", "is missing; a range has low and high, both included")
        low, high = (self.number(value[end], f"{key}.{end}", read) for end in ("low", "high"))
        log = value.get("log", False)
        if not isinstance(log, bool):
            raise self.fail(f"{key}.log", f"must be true or false, but is {log!r}")
        step = self.number(value["step"], f"{key}.step", read) if "step" in value else None
        if low > high:
            raise self.fail(key, f"low must not exceed high, but low is {low} and high is {high}")
        if log and low <= 0:
            raise self.fail(key, f"a logarithmic range starts above 0, but low is {low}")
        if step is not None:
            if log:
                raise self.fail(key, "log and step cannot be combined: logarithmic ranges have no steps")
            if step <= 0:
                raise self.fail(f"{key}.step", f"must be above 0, but is {step}")
            steps = (high - low) / step
            if steps > MOST_STEPS:
                raise self.fail(
                    f"{key}.step", f"must give at most {MOST_STEPS:,} values in the range, but {step} gives {steps:.3g}"
                )
            if abs(steps - round(steps)) > 1e-9:
                raise self.fail(f"{key}.step", f"must divide the range: {high} − {low} is not a multiple of {step}")
        # Every value where they are few, both ends otherwise: an even kernel in the middle of a range is found here.
        values: Any = (low, high)
        if kind == "int" and high - low <= 1000:
            values = range(int(low), int(high) + 1, int(step or 1))
        for candidate in values:
            self.valid(candidate, key, field)
        if kind == "int":
            return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
        return FloatDistribution(low, high, log=log, step=step)

    def number(self, value: Any, key: str, read: type[int] | type[float]) -> Any:
        """An end or a step of a range, finite."""
        if isinstance(value, str) and read is float and _looks_numeric(value):
            value = float(value)
        allowed = (int,) if read is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise self.fail(key, f"must be {'a whole number' if read is int else 'a number'}, but is {value!r}")
        if not abs(value) < 1e300:  # NaN too
            raise self.fail(key, f"must be finite, but is {value!r}")
        if read is int and abs(value) > LARGEST:
            raise self.fail(key, f"must be at most {LARGEST:,} in size, but is {value!r}")
        return read(value)

    def valid(self, value: Any, key: str, field: TypeAdapter[Any]) -> Any:
        """`value` as the field's type. Strings that YAML 1.1 failed to read as numbers (1e-4) are read; words that it
        read as booleans (on, off, yes, no) are refused where no boolean is meant."""
        if isinstance(value, str):
            with suppress(ValidationError):
                value = field.validate_python(float(value)) if _looks_numeric(value) else value
        elif isinstance(value, tuple):
            value = tuple(float(v) if isinstance(v, str) and _looks_numeric(v) else v for v in value)
        try:
            return field.validate_python(value, strict=True)
        except ValidationError as error:
            note = "; YAML reads on, off, yes and no as booleans: put a word in quotes" if isinstance(value, bool) else ""
            raise self.fail(key, what_is_wrong(error, note)) from None


def _adapter(model: type[BaseModel], key: str) -> TypeAdapter[Any]:
    """Validates one field alone, by its annotation and its limits."""
    info = model.model_fields[key]
    annotation: Any = info.annotation
    for limit in info.metadata:
        annotation = Annotated[annotation, limit]
    return TypeAdapter(annotation)


def _looks_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

"""The JSON Schema of a space file, by which editors complete and check it; generated from the configurations that read it.

It allows what nas allows, but for rules that compare values: a low end above the high one, or an even kernel.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from nas.config import (
    MOST_STAGES,
    ArchConfig,
    AugmentConfig,
    BlockName,
    BudgetConfig,
    ImageShape,
    StageConfig,
    StemConfig,
    StudyConfig,
    TrainConfig,
)
from nas.space.space import Reported
from nas.space.space_file import VERSION

Schema = dict[str, Any]
_NUMBER = {"type": "number"}
_ENDS: dict[str, Schema] = {"low": _NUMBER, "high": _NUMBER, "step": _NUMBER, "log": {"type": "boolean"}}
_AMOUNT = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^[0-9][0-9_.]*\s*[A-Za-z]*$"}]}
_COMPUTE = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*[kKmMgGtTpPeE]?(FLOPs?|flops?)?$"}


def space_schema(samplers: list[str], pruners: list[str]) -> Schema:
    stage = {key: _or_list(_or_range(one)) for key, one in _fields(StageConfig).items()}
    arch = {key: _or_range(one) for key, one in _fields(ArchConfig).items() if key not in ("block_source", "stem")}
    own_block = {"anyOf": [{"enum": list(get_args(BlockName))}, {"type": "string"}]}
    arch |= {
        "stages": _or_range({"type": "integer", "minimum": 1, "maximum": MOST_STAGES, "description": "Number of stages."}),
        "stage": _mapping(stage, ["blocks", "channels"]),
        "stem": _mapping({key: _or_range(one) for key, one in _fields(StemConfig).items()}),
        "block": _or_range(own_block | {"description": arch["block"]["description"]}),
    }
    of_train = _fields(TrainConfig)
    train = {key: _or_range(one) for key, one in of_train.items() if key != "augment"}
    train |= {
        "epochs": of_train["epochs"],
        "epoch_images": of_train["epoch_images"],
        "hardest": of_train["hardest"],
        "milestones": {"type": "array", "items": _NUMBER},
        "optimizer": train["optimiser"],
        "augment": _mapping({key: _or_range(one) for key, one in _fields(AugmentConfig).items()}),
    }
    budget = _fields(BudgetConfig) | dict.fromkeys(("params", "macs", "memory", "flash", "ram"), _AMOUNT)
    budget["latency"]["anyOf"][0]["oneOf"] = [{"required": [by]} for by in ("runtime", "command")]
    study = _fields(StudyConfig) | {"sampler": _strategy(samplers), "pruner": _strategy(pruners)}
    for key in ("trial_compute", "final_compute"):
        study[key] |= {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _COMPUTE, {"type": "null"}]}
    share = _or_range({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A search space of nas",
        "$defs": {"range": _mapping({"type": {"enum": ["int", "float"]}, **_ENDS}, ["low", "high"])},
        **_mapping(
            {
                "version": {"const": VERSION},
                "budget": _mapping(budget) | {"minProperties": 1},
                "fit": {"anyOf": [{"const": "params"}, _mapping({"params": share}, ["params"])]},
                "images": _mapping(_fields(ImageShape), list(ImageShape.model_fields)),
                "reported": _mapping(_fields(Reported), list(Reported.model_fields)),
                "study": _mapping(study),
                "blocks": {"type": "array", "items": {"type": "string", "pattern": r"\.py:\w+$"}},
                "arch": _mapping(arch, ["stages", "stage"]),
                "train": _mapping(train),
            },
            ["version", "budget", "arch"],
        ),
    }


def _mapping(properties: dict[str, Schema], required: list[str] | None = None) -> Schema:
    return {"type": "object", "properties": properties, "required": required or [], "additionalProperties": False}


def _strategy(names: list[str]) -> Schema:
    known = {"enum": names}
    return {"anyOf": [known, {"type": "object", "properties": {"name": known}, "required": ["name"]}]}


def _or_list(value: Schema) -> Schema:
    """One for all stages, or one for each."""
    return {"anyOf": [value, {"type": "array", "items": value, "maxItems": MOST_STAGES}]}


def _or_range(value: Schema) -> Schema:
    """A fixed value, or what it is drawn from."""
    value = dict(value)
    described = {"description": value.pop("description")} if "description" in value else {}
    choices = {"type": "array", "items": value, "minItems": 1}
    categorical = _mapping({"type": {"const": "categorical"}, "choices": choices}, ["type", "choices"])
    return {"anyOf": [value, {"$ref": "#/$defs/range"}, categorical], **described}


def _fields(model: type[BaseModel]) -> dict[str, Schema]:
    """Of each field what it may be, with its meaning; models within it spelt out."""
    whole = model.model_json_schema()
    defined = whole.get("$defs", {})

    def spelt_out(part: Any) -> Any:
        if isinstance(part, list):
            return [spelt_out(one) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return spelt_out(defined[part["$ref"].rpartition("/")[2]])
        # What a field's class is called and says of itself is no help in an editor.
        return {key: spelt_out(one) for key, one in part.items() if key not in ("title", "default", "description")}

    said = dict(meanings(model))
    return {key: spelt_out(one) | {"description": said.get(key, "")} for key, one in whole["properties"].items()}


def meanings(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """What is written beside a field, behind its line or below it."""
    source = textwrap.dedent(inspect.getsource(model))
    body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign):
            continue
        line = source.splitlines()[(node.end_lineno or 0) - 1]
        _, _, text = line.partition("  # ")
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            text = " ".join(str(after.value.value).split())
        yield ast.unparse(node.target), text if text.partition(" ")[0][-1:] in (":", ",") else f"{text[:1].upper()}{text[1:]}"

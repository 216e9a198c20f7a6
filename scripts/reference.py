"""Writes docs/commands.md, docs/space-file.md and the JSON Schema of a space file from the commands and the configurations.

`tests/test_documents.py` fails while a page is not what this writes.
"""

import inspect
import json
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel, TypeAdapter

from nas.cli.main import app
from nas.cli.options import CommandHelp
from nas.config import ArchConfig, AugmentConfig, BudgetConfig, ImageShape, StageConfig, StemConfig, StudyConfig, TrainConfig
from nas.config.budget import LatencyConfig
from nas.space.recipes import DepthRate, Recipe
from nas.space.schema import meanings, space_schema
from nas.space.space import Reported
from nas.study.pruners import PRUNERS
from nas.study.samplers import SAMPLERS
from nas.study.strategies import EPOCHS, STARTUP_TRIALS

DOCS = Path(__file__).parents[1] / "docs"
SCHEMA = Path(__file__).parents[1] / "search_spaces" / "space.schema.json"
COMMANDS = """# Commands

Every command and its options, as in `nas COMMAND --help-all`. Written by `scripts/reference.py`.
"""
SPACE_FILE = """# Keys of a space file

Every key of a space file, a preset and a recipe: its values, its default and its meaning. Written by `scripts/reference.py` from
the configurations in `nas/config/`. [Spaces](../search_spaces/README.md) shows whole files.

| key of the file | |
|---|---|
| `version` | 1, required |
| `budget` | required: [limits](#budget) of a network, at least one |
| `arch` | required: the [network](#arch) |
| `train` | the [training](#train); everything has a default |
| `fit` | `params`, or `{params: share}`: scale the widths of every candidate to fill the budget |
| `images` | the [images](#images) that the budget is meant for; CIFAR-10's by default |
| `study` | [how the space is searched](#study), unless the command line says otherwise |
| `blocks` | a list of Python files with blocks of your own: `FILE.py:CLASS` |
| `reported` | of a preset: [what its report says](#reported) |

Each key of `arch` and `train` is a fixed value, or a range that the search draws from:

```yaml
lr: 0.1
lr: {type: float, low: 0.01, high: 0.5, log: true}
blocks: {type: int, low: 1, high: 9, step: 2}
activation: {type: categorical, choices: [relu, gelu, silu]}
```
"""
DEFAULTS_OF_NEW = {  # of pruners in a study that begins, where the signature has the value of older studies (`fill_new`)
    "startup_trials": f"`{STARTUP_TRIALS}`",
    "first_rung": "by the epochs",
    "warmup_epochs": "by the epochs",
}
EARLIEST = (
    "epochs of a trial before it may be pruned; null: 1/{} of the epochs, rounded up. The default is that, but at least 2 if "
    "the warm-up of the learning rate is longer than one epoch."
)
ARGUMENTS = {  # of samplers and pruners; those of one of them by its name, too
    "startup_trials": "trials that are drawn uniformly first",
    "asha.startup_trials": "completed trials before pruning begins; 0 in a study of an older version",
    "hyperband.startup_trials": "completed trials before pruning begins; 0 in a study of an older version",
    "median.startup_trials": "completed trials before pruning begins",
    "percentile.startup_trials": "completed trials before pruning begins",
    "candidates": "candidates for each draw, of which the most promising is taken",
    "good": "share of the trials that count as good",
    "population": "networks in the population",
    "cmaes.population": "networks in a generation; null: 4 + 3 ln N, rounded down, for N numeric parameters",
    "tournament": "networks drawn from the population; the best one is the parent",
    "mutations": "parameters that a child changes, on average",
    "step": "standard deviation of the change of a number, as a share of its range",
    "reduction": "keep the best 1/N at each rung, and multiply the epochs between rungs by N",
    "first_rung": EARLIEST.format("`reduction`²"),
    "warmup_epochs": EARLIEST.format("9"),
    "min_trials": "trials that must have reached an epoch before it is used to prune",
    "percentile": "prune trials below the best N % of the completed ones",
    "wrapped": "pruner that must agree; `alone`: prune as soon as `patience` has run out",
    "patience": "epochs without improvement before pruning",
    "min_delta": "how far a trial must be below its own best accuracy; 0.01 is one point",
}
SECTIONS: list[tuple[str, type[BaseModel], tuple[str, ...]]] = [  # heading, model, fields that are no keys
    ("budget", BudgetConfig, ()),
    ("budget.latency", LatencyConfig, ()),
    ("arch", ArchConfig, ("stages", "block_source")),
    ("arch.stage", StageConfig, ()),
    ("arch.stem", StemConfig, ()),
    ("train", TrainConfig, ()),
    ("train.augment", AugmentConfig, ()),
    ("study", StudyConfig, ()),
    ("images", ImageShape, ()),
    ("reported", Reported, ()),
    ("Recipes", Recipe, ()),
    ("stochastic_depth of a recipe", DepthRate, ()),
]


def main() -> None:
    for file, text in pages().items():
        file.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    schema = json.dumps(space_schema(list(SAMPLERS), list(PRUNERS)), indent=1, ensure_ascii=False) + "\n"
    return {DOCS / "commands.md": commands(), DOCS / "space-file.md": space_file(), SCHEMA: schema}


def commands() -> str:
    parts = [COMMANDS]
    for name, command in typer.main.get_group(app).commands.items():
        assert isinstance(command, CommandHelp)
        rows = [row for row in command.rows(command.make_context(name, [], resilient_parsing=True)) if row.names != "--help"]
        table = _table(("", "option", ""), [(row.group, f"`{row.names}`", row.text) for row in rows])
        examples = inspect.cleandoc(str(command.epilog).partition("Examples:")[2])
        parts.append(f"## nas {name}\n\n{str(command.help).strip()}\n\n```sh\n{examples}\n```\n\n{table}")
    return "\n".join(parts)


def space_file() -> str:
    parts = [SPACE_FILE]
    headings = {heading for heading, _, _ in SECTIONS}
    for heading, model, left_out in SECTIONS:
        schema = model.model_json_schema()
        said = dict(meanings(model))
        rows = []
        for key, described in schema["properties"].items():
            if key in left_out:
                continue
            values = _values(described, schema.get("$defs", {}))
            if (inner := f"{heading}.{key}") in headings:
                values = values.replace("mapping", f"[mapping](#{inner.replace('.', '')})")
            default = _default(described) if key not in schema.get("required", []) else "required"
            rows.append((f"`{key}`", values, default, said.get(key, "")))
        if heading == "arch":
            rows = [
                ("`stages`", "1 to 6", "required", "Number of stages."),
                (
                    "`stage`",
                    "[mapping](#archstage)",
                    "required",
                    "What each stage is drawn from; a list has one entry for each stage.",
                ),
                *rows,
            ]
        parts.append(f"## {heading}\n\n" + _table(("key", "values", "default", "meaning"), rows))
    for kind, registry in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        rows = []
        for name, made in registry.items():
            for argument, parameter in inspect.signature(made).parameters.items():
                if argument != EPOCHS:
                    schema = TypeAdapter(parameter.annotation).json_schema()
                    values = _values(schema, {})
                    default = _word(parameter.default)
                    if kind == "pruner" and argument in DEFAULTS_OF_NEW and not parameter.default:
                        default = DEFAULTS_OF_NEW[argument]
                    text = ARGUMENTS.get(f"{name}.{argument}") or ARGUMENTS[argument]
                    rows.append((f"`{name}`", f"`{argument}`", values, default, text))
        text = f"Written as `{kind}: {{name: NAME, ARGUMENT: VALUE}}`. [What each does](search.md#sampler-and-pruner)."
        parts.append(f"## Arguments of a {kind}\n\n{text}\n\n" + _table((kind, "argument", "values", "default", "meaning"), rows))
    return "\n".join(parts)


def _values(described: dict[str, Any], defined: dict[str, Any]) -> str:
    if "allOf" in described:  # how pydantic before 2.9 writes a $ref beside a default
        described = {**described, **described["allOf"][0]}
    if "$ref" in described:
        described = {**described, **defined[described["$ref"].rpartition("/")[2]]}
    if "anyOf" in described:
        return " or ".join(_values(one, defined) for one in described["anyOf"])
    if "enum" in described:
        return ", ".join(_word(one) for one in described["enum"])
    if "const" in described:
        return _word(described["const"])
    low, high = (described.get(name) for name in ("minimum", "maximum"))
    above, below = (described.get(name) for name in ("exclusiveMinimum", "exclusiveMaximum"))
    ends = [
        f"from {_number(low)}" if low is not None else f"above {_number(above)}" if above is not None else "",
        f"to {_number(high)}" if high is not None else f"below {_number(below)}" if below is not None else "",
    ]
    kinds = {"boolean": "true or false", "array": "list", "object": "mapping", "string": "text", "null": "null"}
    kind = kinds.get(described.get("type", ""), described.get("type", "any"))
    return " ".join([kind, *filter(None, ends)])


def _number(value: float) -> str:
    return f"{value:,}".removesuffix(".0")  # some releases of pydantic write 0 as 0.0


def _default(described: dict[str, Any]) -> str:
    default = described.get("default")
    return "" if "default" not in described or default == "" or isinstance(default, dict) else _word(default)


def _word(value: Any) -> str:
    words = {True: "true", False: "false", None: "null"}
    return f"`{words[value] if value is None or isinstance(value, bool) else value}`"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines) + "\n"
    )


if __name__ == "__main__":
    main()

"""Options of the commands for Typer, the help of a command, and completion of values in the shell."""

import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

import typer
from typer.core import TyperCommand

from nas import __version__
from nas.logs import start_logging
from nas.paths import PRESET, known_studies, shipped_names
from nas.specs.options import Option, with_options

Command = TypeVar("Command", bound=Callable[..., None])
GROUPS = {  # of a command's help, and their options in order; those behind a | are rare, and some belong to one command
    "Arguments": "",
    "Study": "study | storage",
    "Network": "vary set grid name run tta adapt-norm",
    "Data": "dataset data search.labels validation hold-out include-test-labels train-subset size show.image-size check.channels "
    "show.channels classes | labels image-column label-column label-columns no-header group-column image-size resize "
    "channels skip-bad-images group-duplicates test",
    "Budget": "trials timeout max-params max-macs",
    "Search": "space sampler pruner finalists | metric finalist-epochs finalist-seeds warm-start",
    "Training": "recipe like epochs time seed seeds choose-by | compute trial-compute final-compute class-balance",
    "Devices": "device gpus workers compile | workers-per-gpu threads ray gpus-per-worker cpus-per-worker",
    "Output": "format output submit.like names id-column submit.label-column probabilities bf16 keep-float top "
    "estimate log quiet json",
    "Options": "",  # all others
}
PLACES = {
    name: (group, is_rare)
    for group, names in GROUPS.items()
    for is_rare, part in zip((False, True), names.split("|"), strict=False)
    for name in part.split()
}
METAVARS = {"<int>": "N", "<int range>": "N", "<float>": "X", "<float range>": "X", "<str>": "NAME", "<path>": "PATH"}
"""What the help calls a value of a type, which Typer shows as the key."""
app = typer.Typer(
    help="Finds the best residual network under a parameter budget, trains it, and predicts with it. To start: nas search.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100},
)


class HelpRow(NamedTuple):
    group: str  # a key of `GROUPS`
    is_rare: bool
    names: str
    text: str


class CommandHelp(TyperCommand):
    """A command whose help has its options in groups; `--help` only names the rare ones, `--help-all` explains them, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--help-all" in args:
            ctx.meta["--help-all"] = True
            print(ctx.get_help())
            raise typer.Exit
        return super().parse_args(ctx, args)

    def rows(self, ctx: Any) -> list[HelpRow]:
        """In the order of `GROUPS`."""
        rows: dict[tuple[int, ...], HelpRow] = {}
        for one in self.get_params(ctx):
            shown, text = one.get_help_record(ctx) or ("", "")
            names, space, kind = shown.partition(" <")
            flag = max(one.opts, key=len).removeprefix("--")
            place = next((known for known in (f"{self.name}.{flag}", flag) if known in PLACES), "")
            group, is_rare = PLACES.get(place, ("Options", False))
            if one.param_type_name == "argument":
                group, is_rare = "Arguments", False
            elif space:
                names += f" {METAVARS.get(f'<{kind}', kind)}"
            order = list(GROUPS).index(group), [*PLACES, ""].index(place), len(rows)
            rows[order] = HelpRow(group, is_rare, names, " ".join(text.split()))
        return [row for _, row in sorted(rows.items())]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        rows = self.rows(ctx)
        rare = [] if "--help-all" in ctx.meta else [row for row in rows if row.is_rare]
        rows = [row for row in rows if row not in rare]
        groups = ["", *(row.group for row in rows)]
        shown = [f"{'' if row.group == last else row.group:11s}{row.names}" for last, row in zip(groups, rows, strict=False)]
        formatter.write_paragraph()
        formatter.write_dl([(names, row.text) for names, row in zip(shown, rows, strict=True)], col_max=42)
        if rare:
            text = f"More, explained by --help-all: {', '.join(row.names.split()[0].strip(',') for row in rare)}"
            formatter.write_paragraph()
            formatter.write(textwrap.indent(textwrap.fill(text, formatter.width - 2, break_on_hyphens=False), "  ") + "\n")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nas {__version__}")
        raise typer.Exit


@app.callback()
def _of_all_commands(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what happens, as NAS_LOG=info does.")] = False,
) -> None:
    start_logging("info" if verbose else None)


def command(name: str, help: str, *examples: str) -> Callable[[Command], Command]:
    """Registers a function. If it has a parameter `given: Given[…]`, the command has the options of that spec."""
    epilog = "\n".join(["\b", "Examples:", *(f"  {example}" for example in examples)])

    def register(run: Command) -> Command:
        takes_spec = "given" in inspect.signature(run).parameters
        app.command(name, cls=CommandHelp, help=help, epilog=epilog)(with_options(run, typer_parameter) if takes_spec else run)
        return run

    return register


def typer_parameter(known: Option) -> inspect.Parameter:
    flag = f"--{known.name.replace('_', '-')}"
    how: dict[str, Any] = {"help": known.help, "min": known.min, "max": known.max, "metavar": known.metavar}
    if known.complete is not None:
        how["autocompletion"] = offer(known.complete)
    if known.kind is bool and known.optional:
        flag = f"{flag}/--no-{flag[2:]}"
    described = typer.Argument(**how) if known.argument else typer.Option(*filter(None, (flag, known.alias)), **how)
    kind = list[known.kind] if known.many else known.kind  # type: ignore[name-defined]
    default = known.default
    if default == ():
        default = None
    elif default is dataclasses.MISSING:
        default = inspect.Parameter.empty
    annotation = kind | None if default is None else kind
    return inspect.Parameter(
        known.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, described]
    )


# ------------------------------------------------------------------------------------------------------- shell completion


def _list_of(address: str) -> Callable[[], list[str]]:
    """The values of a Literal, the keys of a registry, or the result of a function, given by its address in the package.
    Imported only for completion: `nas --help` must be quick."""

    def values() -> list[str]:
        module, _, name = address.rpartition(".")
        found = getattr(import_module(module), name)
        return list(found() if inspect.isfunction(found) else get_args(found) or found)

    return values


def _subjects() -> list[str]:
    return ["best", *(f"{PRESET}{name}" for name in shipped_names("preset"))]


# Lists from modules that import torch or Optuna are copied here; a test compares them.
CHOICES: dict[str, Callable[[], Iterable[str]]] = {
    "study": known_studies,
    "space": lambda: shipped_names("space"),
    "subject": _subjects,
    "network": lambda: [*_subjects(), *shipped_names("space")],
    "start": lambda: ["presets", *_subjects()[1:], *(f"study:{name}" for name in known_studies())],
    "recipe": _list_of("nas.space.recipes.recipe_names"),
    "dataset": _list_of("nas.data.datasets.DATASETS"),
    "sampler": lambda: ("tpe", "random", "gp", "qmc", "cmaes", "evolution"),
    "pruner": lambda: ("asha", "hyperband", "median", "percentile", "patient", "none"),
    "metric": _list_of("nas.config.MetricName"),
    "balance": _list_of("nas.config.BalanceName"),
    "resize": _list_of("nas.config.ResizeName"),
    "channels": _list_of("nas.config.ChannelsName"),
    "averaging": _list_of("nas.space.recipes.TtaName"),
    "format": lambda: ("weights", "onnx", "onnx-int8", "torch"),
    "tracker": lambda: ("tensorboard", "wandb", "mlflow"),
    "criterion": _list_of("nas.specs.Criterion"),
    "device": lambda: ("auto", "cuda", "mps", "cpu"),
}


def offer(name: str) -> Callable[[str], list[str]]:
    """For Typer's `autocompletion`: the choices that start with what was typed."""

    def complete(begun: str) -> list[str]:
        return [one for one in CHOICES[name]() if one.startswith(begun)]

    return complete


# ------------------------------------------------------------------------------------------------- options of several commands

StudyOption = Annotated[
    str | None, typer.Option("--study", help="Name of the study. [default: the one used last]", autocompletion=offer("study"))
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings, errors and the result.")]
LogOption = Annotated[
    str | None, typer.Option("--log", help="Also log epochs to tensorboard, wandb or mlflow.", autocompletion=offer("tracker"))
]
DatasetOption = Annotated[
    str | None,
    typer.Option("--dataset", help="With preset:NAME: begin a study on this data set.", autocompletion=offer("dataset")),
]

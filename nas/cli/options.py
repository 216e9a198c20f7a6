"""Options of commands: those of a spec, for Typer, those that commands alone have, and what a shell offers for their values."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer

from nas import __version__
from nas.paths import PRESET, known_studies, shipped_names
from nas.specs import ImageFields
from nas.specs.options import Option, options_of, with_options

Command = TypeVar("Command", bound=Callable[..., None])
app = typer.Typer(
    help="Finds the best residual network under a parameter budget, trains it, and predicts with it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nas {__version__}")
        raise typer.Exit


@app.callback()
def _of_all_commands(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """The function itself does nothing."""


def command(name: str, help: str) -> Callable[[Command], Command]:
    """Registers a function; one that takes a `Given[…]` as its parameter `given` has the options of that spec."""

    def register(run: Command) -> Command:
        takes_spec = "given" in inspect.signature(run).parameters
        app.command(name, help=help)(with_options(run, typer_parameter) if takes_spec else run)
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


# ------------------------------------------------------------------------------------------------------- what a shell offers


def _list_of(address: str) -> Callable[[], list[str]]:
    """What stands at an address in the package: the values of a Literal, the keys of a registry, or what a function returns.
    Imported when it is asked for: `nas --help` must be quick."""

    def values() -> list[str]:
        module, _, name = address.rpartition(".")
        found = getattr(import_module(module), name)
        return list(found() if inspect.isfunction(found) else get_args(found) or found)

    return values


def _subjects() -> list[str]:
    return ["best", *(f"{PRESET}{name}" for name in shipped_names("preset"))]


# A list whose home imports torch or Optuna, which takes seconds, is written out, and a test compares it.
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
    "averaging": lambda: ("none", "flip", "flip_shift"),
    "format": lambda: ("weights", "onnx", "torch"),
    "tracker": lambda: ("tensorboard", "wandb"),
    "criterion": _list_of("nas.specs.Criterion"),
    "device": lambda: ("auto", "cuda", "mps", "cpu"),
}


def offer(name: str) -> Callable[[str], list[str]]:
    """For Typer's `autocompletion`: those of `CHOICES` that begin as what was typed."""

    def complete(begun: str) -> list[str]:
        return [one for one in CHOICES[name]() if one.startswith(begun)]

    return complete


# ------------------------------------------------------------------------------------------ what several commands have besides

StudyOption = Annotated[
    str | None,
    typer.Option(
        "--study", help="The study's name, a folder under studies/. [default: the one used last]", autocompletion=offer("study")
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Data on standard output, as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings, faults and the result alone.")]
LogOption = Annotated[
    str | None,
    typer.Option(
        "--log",
        help="Also send every epoch to a tracker: tensorboard or wandb (offline by default).",
        autocompletion=offer("tracker"),
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Of a preset of no study: digits, cifar10, cifar100, fashion-mnist, svhn, folder.",
        autocompletion=offer("dataset"),
    ),
]
DataOption = Annotated[Path | None, typer.Option("--data", help=options_of(ImageFields)["data_folder"].help)]

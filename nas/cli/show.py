"""`nas show`"""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.options import JsonOption, StudyOption, print_json

if TYPE_CHECKING:
    from nas.config import Candidate
    from nas.report.network import NetworkReport

HELP = """Show a network (its layers, cost and recipe) or a space (its ranges, and how much of it fits the budget).

A preset is shown for images of 3×32×32 in 10 classes, or, with --study, for that study's.
"""


def command(
    what: Annotated[
        str, typer.Argument(help="`best`, a trial's number, preset:NAME, or a space: a shipped one's name or a file.")
    ] = "best",
    study: StudyOption = None,
    draws: Annotated[int, typer.Option(help="Of a space: uniform draws that are counted.", min=1)] = 600,
    as_json: JsonOption = False,
) -> None:
    if what == "best" or what.isdecimal() or what.startswith("preset:"):
        _show_network(what, study, as_json)
    else:
        _show_space(what, draws, as_json)


def _show_network(which: str, study: str | None, as_json: bool) -> None:
    from nas.cli.display import count_text
    from nas.paths import existing_study
    from nas.presets import PREFIX
    from nas.report.network import report_network
    from nas.retrain import find_subject, preset_subject
    from nas.search.settings import read_settings
    from nas.space_file import CIFAR10

    if which.startswith(PREFIX) and study is None:
        name, subject, shape = None, preset_subject(which), CIFAR10
    else:
        paths = existing_study(study)
        name, subject, shape = paths.name, find_subject(paths, which), read_settings(paths).shape
    network = report_network(subject.candidate.arch, shape)
    if as_json:
        print_json(
            {
                "study": name,
                "network": subject.title,
                "validation_accuracy": subject.accuracy,
                "images": shape.model_dump(),
                **asdict(network),
                "candidate": subject.candidate.model_dump(mode="json"),
            }
        )
        return
    seen = "" if subject.accuracy is None else f", validation accuracy {subject.accuracy:.2%} in the search"
    print((f"Study {name}, " if name else "") + subject.title + seen)
    print(
        f"{count_text(network.params)} parameters, {count_text(network.macs)} multiply-adds "
        f"on images of {shape.channels}×{shape.size}×{shape.size}, {network.architecture}\n"
    )
    _print_layers(network)
    print()
    _print_recipe(subject.candidate)


def _print_layers(network: "NetworkReport") -> None:
    width = max(len(layer.name) for layer in network.layers)
    print(f"{'layer':{width}}  {'kind':20s} {'output':>14s} {'parameters':>12s}")
    for layer in network.layers:
        output = "×".join(str(n) for n in layer.output)
        print(f"{layer.name:{width}}  {layer.kind:20s} {output:>14s} {layer.params:12,}")
    print(f"{'total':{width}}  {'':20s} {'':>14s} {network.params:12,}")
    print(f"{network.params:,} parameters, {network.megabytes:.2f} MB in float32; {network.macs:,} multiply-adds an image")


def _print_recipe(candidate: "Candidate") -> None:
    """What the recipe uses; a field that it does not use is left out."""
    always = {"epochs", "batch_size", "optimiser", "lr", "weight_decay", "schedule", "ema_epochs", "crop_padding", "flip"}
    used = candidate.train.canonical().model_dump(exclude_defaults=True)
    recipe = candidate.train.model_dump()
    augment = {k: v for k, v in recipe.pop("augment").items() if k in always | used.get("augment", {}).keys()}
    recipe = {k: v for k, v in recipe.items() if k in always | used.keys()}
    print("recipe    " + ", ".join(f"{key} {_short(value)}" for key, value in recipe.items()))
    print("augment   " + ", ".join(f"{key} {_short(value)}" for key, value in augment.items()))
    for warning in candidate.train.warnings():
        print(f"Warning: {warning}", file=sys.stderr)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show_space(name: str, draws: int, as_json: bool) -> None:
    from nas.budget import Budget
    from nas.search.feasibility import measure_fit
    from nas.space_file import load_space

    space = load_space(name)
    shape = space.images
    fit = measure_fit(space, Budget(space.budget, shape), draws, seed=0)
    if as_json:
        print_json(
            {
                "space": space.name,
                "fingerprint": space.fingerprint,
                "budget": space.budget.model_dump(),
                "parameters": space.describe(),
                "images": shape.model_dump(),
                "fit": asdict(fit),
            }
        )
        return
    macs = f", {space.budget.macs:,} multiply-adds" if space.budget.macs else ""
    print(f"Space {space.name}: {space.budget.params:,} parameters{macs}")
    for slot, values in space.describe().items():
        print(f"  {slot:20s} {values}")
    print(f"Of {draws} uniform draws, on images of {shape.size}×{shape.size}, {fit.fits:.0%} fit the budget:", end=" ")
    print(", ".join(f"{block} {share:.0%} of {fit.draws_by_block[block]}" for block, share in fit.by_block.items()))
    if fit.fits < 1 / 3:
        print("Less than a third fits: narrow the ranges of channels, blocks and kernels.", file=sys.stderr)

"""`nas show`"""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import note, pick, print_json
from nas.cli.options import JsonOption, StudyOption, command, offer
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.report.show import ShownNetwork, ShownSpace


@command(
    "show",
    """Show a network or a search space.

For a network: its layers, cost and recipe. For a space: its ranges, and how many random networks fit the budget. A preset is
shown for CIFAR-10's images, or with --study for that study's images.
""",
    "nas show best --picture network.svg",
    "nas show preset:resnet-443 --image-size 64",
    "nas show resnet-small",
)
def show(
    what: Annotated[
        str,
        typer.Argument(
            help="`best`, a trial number, preset:NAME, or a space: its name or a file.", autocompletion=offer("network")
        ),
    ] = "best",
    study: StudyOption = None,
    draws: Annotated[int, typer.Option(help="Space: number of random networks to count.", min=1)] = 600,
    picture: Annotated[Path | None, typer.Option(help="Also write a picture of the network to this .svg file.")] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", "--size", help="Size of the images. [default: the study's, or 32]", min=8, max=1024),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Channels of the images. [default: the study's, or 3]", min=1, max=16)
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes. [default: the study's, or 10]", min=2)] = None,
    as_json: JsonOption = False,
) -> None:
    asked = {"size": image_size, "channels": channels, "classes": classes}
    images = {name: value for name, value in asked.items() if value is not None}
    from nas.report.network import draw_network
    from nas.report.show import show_network, show_space

    if what == "best" or what.isdecimal() or what.startswith("preset:"):
        shown = show_network(what, study, images, note)
        if picture is not None:
            _write_picture(picture, draw_network(shown.facts.parts, shown.facts.params))
        print_json(_network_data(shown)) if as_json else _print_network(shown)
        return
    if picture is not None:
        raise ConfigError("--picture draws a network, not a space", hint="nas show best --picture network.svg")
    space = show_space(what, draws, images, note)
    print_json(_space_data(space)) if as_json else _print_space(space)


# ------------------------------------------------------------------------------------------------------------ a network


def _network_data(shown: "ShownNetwork") -> dict[str, object]:
    subject, metric = shown.subject, shown.metric
    return {
        "study": shown.study,
        "network": subject.title,
        "validation_accuracy": subject.accuracy if metric == "accuracy" else None,
        **({} if metric == "accuracy" else {f"validation_{metric}": subject.accuracy}),
        "images": shown.images,
        "architecture": shown.facts.built,
        **pick(shown.facts, "params", "macs", "macs_uncounted", "memory", "flash", "ram", "megabytes", "parts", "layers"),
        **({} if shown.latency is None else {"latency_ms": shown.milliseconds}),
        "candidate": subject.candidate,
    }


def _print_network(shown: "ShownNetwork") -> None:
    from nas.config import METRIC_WORDS
    from nas.report.network import text_layers, text_picture
    from nas.report.words import count_text, recipe_texts

    subject, facts, images = shown.subject, shown.facts, shown.images
    seen = "" if subject.accuracy is None else f", validation {METRIC_WORDS[shown.metric]} {subject.accuracy:.2%} in the search"
    print((f"Study {shown.study}, " if shown.study else "") + subject.title + seen)
    print(
        f"{count_text(facts.params)} parameters, {count_text(facts.macs)} MACs "
        f"on images of {images.channels}×{images.size}×{images.size}, {facts.built}\n"
    )
    print("\n".join(text_picture(facts.parts)) + "\n")
    print("\n".join(text_layers(facts.layers)))
    print(f"{facts.params:,} parameters, {facts.megabytes:.2f} MB in float32; {facts.macs:,} MACs for one image")
    if facts.macs_uncounted:
        print(f"The MACs of {', '.join(facts.macs_uncounted)} are not counted, because there is no rule for them.")
    print(f"{facts.memory:,} bytes of float32 activations for one image")
    print(f"In eight bits on a microcontroller: {facts.flash:,} bytes of flash, {facts.ram:,} bytes of RAM")
    if shown.latency is not None:
        ms = shown.milliseconds
        print(f"{'not timed' if ms is None else f'{ms:.3f} ms'} by {shown.latency.setting()}")
    print()
    for key, text in recipe_texts(subject.candidate.train).items():
        print(f"{key:10s}{text}")
    for warning in subject.candidate.train.warnings():
        note(f"Warning: {warning}")


def _write_picture(path: Path, svg: str) -> None:
    if path.suffix.lower() != ".svg":
        raise ConfigError(
            f"a picture is written as SVG, but {path} does not end in .svg", hint=f"--picture {path.with_suffix('.svg')}"
        )
    try:
        path.write_text(svg + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", hint="name another file with --picture") from None


# -------------------------------------------------------------------------------------------------------------- a space


def _space_data(shown: "ShownSpace") -> dict[str, object]:
    fit, space = asdict(shown.fit), shown.space
    if space.budget.latency is not None:
        milliseconds = [ms if math.isfinite(ms) else None for ms in shown.milliseconds]
        fit["latency"] = {"milliseconds": milliseconds, "fits": shown.in_time}
    return {
        "space": space.name,
        **pick(space, "fingerprint", "budget", "images"),
        "parameters": space.describe(),
        "fit": fit,
        "cost": shown.cost,
        **({} if shown.fill is None else {"fill": shown.fill}),
    }


def _print_space(shown: "ShownSpace") -> None:
    from nas.report.words import count_text

    space, fit, size, times = shown.space, shown.fit, shown.space.images.size, shown.milliseconds
    print(f"Space {space.name}: {space.budget.describe()}")
    for slot, values in space.describe().items():
        print(f"  {slot:20s} {values}")
    aside = "" if space.budget.latency is None else ", without latency"
    blocks = ", ".join(f"{block} {share:.0%} of {fit.draws_by_block[block]}" for block, share in fit.by_block.items())
    print(f"Of {fit.draws} uniform draws, on images of {size}×{size}, {fit.fits:.0%} fit the budget{aside}: {blocks}")
    if shown.cost:
        spread = ", ".join(f"{share} below {count_text(macs)}" for share, macs in shown.cost.items())
        print(f"MACs of the networks within the parameter limit: {spread}")
    if shown.fill is not None:
        print(shown.fill.sentence())
    if shown.in_time is not None:
        took = f"they take {times[0]:.2f} to {times[-1]:.2f} ms"
        print(f"{len(times)} of them were timed here: {shown.in_time:.0%} are within the latency limit; {took}")
    if fit.fits * (1 if shown.in_time is None else shown.in_time) < 1 / 3:
        note("Less than a third fits. Narrow the ranges of channels, blocks and kernels.")

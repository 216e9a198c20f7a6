"""`nas show`"""

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.options import JsonOption, StudyOption, print_json
from nas.errors import ConfigError, NasError

if TYPE_CHECKING:
    from nas.budget import Budget
    from nas.config import ArchConfig, Candidate
    from nas.report.network import NetworkReport
    from nas.space import Space

HELP = """Show a network (its layers, cost and recipe) or a space (its ranges, and how much of it fits the budget).

A preset is shown for images of 3×32×32 in 10 classes, or, with --study, for that study's; --image-size shows what anything costs
on others.
"""


def command(
    what: Annotated[
        str, typer.Argument(help="`best`, a trial's number, preset:NAME, or a space: a shipped one's name or a file.")
    ] = "best",
    study: StudyOption = None,
    draws: Annotated[int, typer.Option(help="Of a space: uniform draws that are counted.", min=1)] = 600,
    picture: Annotated[Path | None, typer.Option(help="Also draw the network into this .svg file.")] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", "--size", help="What it costs on images of this size.", min=8, max=1024)
    ] = None,
    channels: Annotated[int | None, typer.Option(help="Of these images. [default: as before]", min=1, max=16)] = None,
    classes: Annotated[int | None, typer.Option(help="Of these images. [default: as before]", min=2)] = None,
    as_json: JsonOption = False,
) -> None:
    asked = {"size": image_size, "channels": channels, "classes": classes}
    images = {name: value for name, value in asked.items() if value is not None}
    if what == "best" or what.isdecimal() or what.startswith("preset:"):
        _show_network(what, study, picture, images, as_json)
    elif picture is not None:
        raise ConfigError("--picture draws a network, not a space", hint="nas show best --picture network.svg")
    else:
        _show_space(what, draws, images, as_json)


def _show_network(which: str, study: str | None, picture: Path | None, images: dict[str, int], as_json: bool) -> None:
    from nas.budget import Budget
    from nas.config import METRIC_WORDS, MetricName
    from nas.paths import existing_study
    from nas.presets import PREFIX
    from nas.report.network import report_network
    from nas.report.picture import draw_network, text_picture
    from nas.report.words import count_text
    from nas.search.settings import read_settings
    from nas.space_file import CIFAR10
    from nas.subjects import find_subject, preset_subject

    if which.startswith(PREFIX) and study is None:
        name, subject, shape, budget = None, preset_subject(which), CIFAR10, None
        metric: MetricName = "accuracy"
    else:
        paths = existing_study(study)
        settings = read_settings(paths)
        name, subject, shape = paths.name, find_subject(paths, which), settings.shape
        metric = settings.study.metric
        # A command that reads leaves the study's file as it is.
        budget = None if images else Budget(settings.budget, shape, paths.latencies, write=lambda file, content: None)
    shape = shape.model_copy(update=images)
    network = report_network(subject.candidate.arch, shape)
    limit = None if budget is None else budget.limits.latency
    ms = None if budget is None or limit is None else _latency(budget, subject.candidate.arch)
    if as_json:
        print_json(
            {
                "study": name,
                "network": subject.title,
                "validation_accuracy": subject.accuracy if metric == "accuracy" else None,
                **({} if metric == "accuracy" else {f"validation_{metric}": subject.accuracy}),
                "images": shape.model_dump(),
                **asdict(network),
                **({} if limit is None else {"latency_ms": ms}),
                "candidate": subject.candidate.model_dump(mode="json"),
            }
        )
        return
    if picture is not None:
        _write_picture(picture, draw_network(network.parts, network.params))
    seen = "" if subject.accuracy is None else f", validation {METRIC_WORDS[metric]} {subject.accuracy:.2%} in the search"
    print((f"Study {name}, " if name else "") + subject.title + seen)
    print(
        f"{count_text(network.params)} parameters, {count_text(network.macs)} multiply-adds "
        f"on images of {shape.channels}×{shape.size}×{shape.size}, {network.architecture}\n"
    )
    print("\n".join(text_picture(network.parts)) + "\n")
    _print_layers(network)
    if limit is not None:
        print(f"{'not timed' if ms is None else f'{ms:.3f} ms'} by {limit.setting()}")
    print()
    _print_recipe(subject.candidate)


def _write_picture(path: Path, svg: str) -> None:
    if path.suffix.lower() != ".svg":
        raise ConfigError(
            f"a picture is written as SVG, but {path} does not end in .svg", hint=f"--picture {path.with_suffix('.svg')}"
        )
    try:
        path.write_text(svg + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", hint="name another file with --picture") from None


def _print_layers(network: "NetworkReport") -> None:
    from nas.report.picture import text_layers

    print("\n".join(text_layers(network.layers)))
    print(f"{network.params:,} parameters, {network.megabytes:.2f} MB in float32; {network.macs:,} multiply-adds an image")
    print(f"{network.memory:,} bytes of float32 activations at once, an image")


def _latency(budget: "Budget", arch: "ArchConfig") -> float | None:
    """Milliseconds, as the search measured them, or else now; None where this machine cannot."""
    try:
        ms = budget.latency(arch)
    except NasError as error:
        print(f"Not timed: {error.message}", file=sys.stderr)
        return None
    return ms if math.isfinite(ms) else None


def _print_recipe(candidate: "Candidate") -> None:
    from nas.report.words import recipe_texts

    for key, text in recipe_texts(candidate.train).items():
        print(f"{key:10s}{text}")
    for warning in candidate.train.warnings():
        print(f"Warning: {warning}", file=sys.stderr)


def _show_space(name: str, draws: int, images: dict[str, int], as_json: bool) -> None:
    from nas.budget import Budget
    from nas.report.words import count_text
    from nas.search.feasibility import check_blocks, check_feasible, measure_cost, measure_fit
    from nas.search.filling import measure_fill
    from nas.space_file import load_space

    space = load_space(name)
    space = space.for_images(space.images.model_copy(update=images))
    check_blocks(space)
    shape, limits = space.images, space.budget
    budget = Budget(limits, shape)
    if images:
        check_feasible(space, budget)
    fit = measure_fit(space, budget, draws, seed=0)
    fill = measure_fill(space, draws, seed=0) if space.fills else None
    cost = measure_cost(space, budget, draws, seed=0)
    timed = _time_draws(space, budget, draws)
    keep = None if not timed or limits.latency is None else sum(ms <= limits.latency.max_ms for ms in timed) / len(timed)
    if as_json:
        latency = (
            {}
            if limits.latency is None
            else {"latency": {"milliseconds": [ms if math.isfinite(ms) else None for ms in timed], "fits": keep}}
        )
        print_json(
            {
                "space": space.name,
                "fingerprint": space.fingerprint,
                "budget": limits.model_dump(),
                "parameters": space.describe(),
                "images": shape.model_dump(),
                "fit": asdict(fit) | latency,
                "cost": cost,
                **({} if fill is None else {"fill": asdict(fill)}),
            }
        )
        return
    print(f"Space {space.name}: {limits.describe()}")
    for slot, values in space.describe().items():
        print(f"  {slot:20s} {values}")
    aside = "" if limits.latency is None else ", its latency aside"
    print(f"Of {draws} uniform draws, on images of {shape.size}×{shape.size}, {fit.fits:.0%} fit the budget{aside}:", end=" ")
    print(", ".join(f"{block} {share:.0%} of {fit.draws_by_block[block]}" for block, share in fit.by_block.items()))
    if cost:
        spread = ", ".join(f"{share} below {count_text(macs)}" for share, macs in cost.items())
        print(f"Multiply-adds of an image, of those that keep the parameters: {spread}")
    if fill is not None:
        print(fill.sentence())
    if keep is not None:
        print(f"Of {len(timed)} of those, timed here, {keep:.0%} keep the latency: {timed[0]:.2f} to {timed[-1]:.2f} ms")
    if fit.fits * (1 if keep is None else keep) < 1 / 3:
        print("Less than a third fits: narrow the ranges of channels, blocks and kernels.", file=sys.stderr)


TIMED_DRAWS = 12


def _time_draws(space: "Space", budget: "Budget", draws: int) -> list[float]:
    """Milliseconds of a few that keep the other limits; none where no latency is limited, or this machine cannot time it."""
    from nas.search.feasibility import time_draws

    if budget.limits.latency is None:
        return []
    try:
        return time_draws(space, budget, TIMED_DRAWS, draws, seed=0)
    except NasError as error:
        print(f"Not timed: {error.message}", file=sys.stderr)
        return []

"""`nas check`"""

import sys
from typing import TYPE_CHECKING, Any

from nas.cli import pick, print_json
from nas.cli.options import JsonOption, command
from nas.specs import CheckSpec
from nas.specs.options import Given

if TYPE_CHECKING:
    from nas.report.check import Checked


@command(
    "check",
    help="""Say what a network costs, whether it fits a budget, and what the rest of the budget would buy.

The network is `best`, a trial's number, preset:NAME, torchvision:resnet18, or a class in a file of yours: net.py:Net. Arguments
stand in the name, quoted for the shell: 'net.py:Net(width=64)'. An argument num_classes is the images' unless it is given.

The images and the budget are the study's, or, of a network that belongs to none, CIFAR-10's and 5 M parameters.

A file of yours runs in a process of its own, which is no sandbox. Exit status: 0 where the network fits, 1 where it does not or
could not be checked.
""",
)
def check(given: Given[CheckSpec], *, as_json: JsonOption = False) -> None:
    from nas.report.check import check as check_network

    output: list[str] = []

    def heard(text: str) -> None:
        output.append(text)
        if not as_json:
            _print_output(text, given.network)

    def note(text: str) -> None:
        print(text, file=sys.stderr)

    checked = check_network(given.build(), heard, note)
    if as_json:
        print_json(_as_data(checked, output[0] if output else ""))
    else:
        _print(checked)
    sys.exit(0 if checked.fits else 1)


def _print_output(text: str, network: str) -> None:
    from nas.display.terminal import printed_lines

    file, _, _ = network.partition(".py:")
    name = f"{file}.py" if file != network else network
    print("\n".join(printed_lines(name, text)) + "\n", file=sys.stderr)


def _as_data(checked: "Checked", output: str) -> dict[str, Any]:
    return {
        **pick(checked, "network", "study", "images", "unchecked", "notes", "parts", "affordable", "fits"),
        **pick(checked.facts, "built", "params", "macs", "memory", "megabytes", "layers"),
        "limits": {name: pick(held, "limit", "value", "left", "kept") for name, held in checked.limits.items()},
        "unchecked": list(checked.unchecked),
        "repeats": [{**block.model_dump(mode="json"), "copies": checked.copies(block)} for block in checked.repeats],
        "width_factor": checked.width_factor if checked.affordable is None else None,
        "printed": output,
    }


def _print(checked: "Checked") -> None:
    from nas.config import LIMIT_NAMES
    from nas.report.check import millions
    from nas.report.network import text_layers, text_picture

    images, facts = checked.images, checked.facts
    print((f"Study {checked.study}, " if checked.study else "") + f"{checked.network}: {facts.built}")
    print(f"on images of {images.channels}×{images.size}×{images.size} in {images.classes} classes\n")
    print("\n".join(text_picture(checked.parts)) + "\n")
    print("\n".join(text_layers(facts.layers)) + "\n")
    if checked.notes:
        print("\n".join(checked.notes) + "\n")
    values = pick(facts, "params", "macs", "memory")
    for name, value in values.items():
        if name in checked.limits:
            print(checked.limits[name].sentence(name))
        elif value is not None:
            print(f"{value:,} {LIMIT_NAMES[name]}{millions(value)}, which nothing limits")
    if "latency" in checked.limits:
        print(checked.limits["latency"].sentence("latency"))
    print(f"{facts.megabytes:.2f} MB of weights")
    for name, why in checked.unchecked.items():
        print(f"Its {name} was not looked at: {why}.")
    print("\nIt fits.\n" if checked.fits else "\nIt does not fit.\n")
    print("\n".join(_affordable(checked) if checked.affordable is not None else _repeats(checked)))


def _affordable(checked: "Checked") -> list[str]:
    """A stage a line."""
    from nas.report.words import count_text

    found = checked.affordable
    assert found is not None
    lines = [
        "What each stage could have, the others as they are:" if checked.fits else "What would make it fit, a stage alone:",
        f"{'':8s} {'blocks':>6s} {'at most':>7s}  {'channels':>8s} {'at most':>7s}  one more block costs",
    ]
    for number, stage in enumerate(found.stages, 1):
        deepest, widest = (str(most or "–") for most in (stage.most_blocks, stage.most_channels))
        cost = f"{stage.block_params:,} parameters, {count_text(stage.block_macs)} multiply-adds"
        lines.append(f"stage {number:<2d} {stage.blocks:6d} {deepest:>7s}  {stage.channels:8d} {widest:>7s}  {cost}")
    widths = tuple(stage.channels for stage in found.stages)
    if found.together is None:
        lines.append("All stages together cannot be so narrow that it fits.")
    elif found.together.channels == widths:
        lines.append("All stages wider together: there is no room for it.")
    else:
        text = "-".join(map(str, found.together.channels))
        how = "wider" if checked.fits else "narrower"
        cost = f"{found.together.params:,} parameters, {count_text(found.together.macs)} multiply-adds"
        lines.append(f"All stages {how} together: {text} channels, {cost}.")
    return lines


def _repeats(checked: "Checked") -> list[str]:
    from nas.report.network import shape_text
    from nas.report.words import count_text

    lines = []
    if checked.repeats:
        names = max(5, *(len(block.name) for block in checked.repeats))
        kinds = max(4, *(len(block.kind) for block in checked.repeats))
        lines = [
            "Blocks that keep the shape, so that a copy could follow:"
            if checked.fits
            else "Blocks that keep the shape, so that they could be left out:",
            f"{'block':{names}s}  {'kind':{kinds}s} {'shape':>11s} {'parameters':>12s} {'MACs':>6s}  "
            + ("room for" if checked.fits else "enough to fit"),
        ]
        for block in checked.repeats:
            cost = f"{block.params:12,} {count_text(block.macs):>6s}"
            lines.append(
                f"{block.name:{names}s}  {block.kind:{kinds}s} {shape_text(block.shape):>11s} {cost}  {_room(checked, block)}"
            )
    factor = checked.width_factor
    if factor is not None and abs(factor - 1) > 0.02:
        lines.append(f"Were all its widths scaled together, about {factor:.2f} times as wide would fill the budget: an estimate,")
        lines.append("since most parameters and multiply-adds grow with the square of the widths.")
    return lines


def _room(checked: "Checked", block: Any) -> str:
    copies = checked.copies(block)
    if checked.fits:
        return f"{copies} more"
    return "no" if copies is None else f"without {-copies} of {block.count}"

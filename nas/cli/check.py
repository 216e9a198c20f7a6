"""`nas check`"""

import sys
from typing import TYPE_CHECKING, Any

from nas.cli import note, pick, print_json
from nas.cli.options import JsonOption, command
from nas.specs import CheckSpec
from nas.specs.options import Given

if TYPE_CHECKING:
    from nas.report.check import Checked


@command(
    "check",
    """Show the cost of a network layer by layer, and whether it fits a budget.

`best` and trial numbers use the images and the budget of their study. Other networks use CIFAR-10's images and a budget of
5 M parameters, unless you give --study. If your class or function has an argument num_classes, it gets the number of classes
unless you set it.

Your file runs in its own process, which is not a sandbox. Exit status: 0 if the network fits, else 1.
""",
    "nas check best --max-macs 100M",
    "nas check 'net.py:Net(width=64)' --size 96 --classes 5",
)
def check(given: Given[CheckSpec], *, as_json: JsonOption = False) -> None:
    from nas.report.check import check as check_network

    output: list[str] = []

    def heard(text: str) -> None:
        output.append(text)
        if not as_json:
            _print_output(text, given.network)

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
    note("\n".join(printed_lines(name, text)) + "\n")


def _as_data(checked: "Checked", output: str) -> dict[str, Any]:
    return {
        **pick(checked, "network", "study", "images", "notes", "affordable", "fits"),
        **pick(
            checked.facts,
            "built",
            "params",
            "macs",
            "macs_products",
            "macs_uncounted",
            "memory",
            "flash",
            "ram",
            "megabytes",
            "parts",
            "layers",
        ),
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
    print("\n".join(text_picture(facts.parts)) + "\n")
    print("\n".join(text_layers(facts.layers)) + "\n")
    if checked.notes:
        print("\n".join(checked.notes) + "\n")
    values = pick(facts, "params", "macs", "memory", "flash", "ram")
    for name, value in values.items():
        if name in checked.limits:
            print(checked.limits[name].sentence(name))
        elif value is not None:
            print(f"{value:,} {LIMIT_NAMES[name]}{millions(value)}, no limit")
        if name == "macs" and facts.macs_products not in (None, value):
            count = f"{facts.macs_products:,}{millions(facts.macs_products)}"
            print(f"  of these {count} in convolutions and other products alone, as most papers count them")
    if "latency" in checked.limits:
        print(checked.limits["latency"].sentence("latency"))
    print(f"{facts.megabytes:.2f} MB of weights")
    for name, why in checked.unchecked.items():
        print(f"Its {name} was not checked: {why}.")
    unknown = "Whether it fits is not known, because not all MACs are counted."
    print("\nIt fits.\n" if checked.fits else f"\n{'It does not fit.' if checked.counts_all else unknown}\n")
    print("\n".join(_affordable(checked) if checked.affordable is not None else _repeats(checked)))


def _affordable(checked: "Checked") -> list[str]:
    """A stage a line."""
    from nas.report.words import count_text

    found = checked.affordable
    assert found is not None
    lines = [
        "Room in each stage, if the others stay as they are:" if checked.fits else "Changes of one stage that would make it fit:",
        f"{'':8s} {'blocks':>6s} {'at most':>7s}  {'channels':>8s} {'at most':>7s}  one more block costs",
    ]
    for number, stage in enumerate(found.stages, 1):
        deepest, widest = (str(most or "–") for most in (stage.most_blocks, stage.most_channels))
        cost = f"{stage.block_params:,} parameters, {count_text(stage.block_macs)} MACs"
        lines.append(f"stage {number:<2d} {stage.blocks:6d} {deepest:>7s}  {stage.channels:8d} {widest:>7s}  {cost}")
    widths = tuple(stage.channels for stage in found.stages)
    if found.together is None:
        lines.append("It does not fit even if all stages become as narrow as possible.")
    elif found.together.channels == widths:
        lines.append("The budget does not allow wider stages.")
    else:
        text = "-".join(map(str, found.together.channels))
        how = "wider" if checked.fits else "narrower"
        cost = f"{found.together.params:,} parameters, {count_text(found.together.macs)} MACs"
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
            "Blocks that keep the shape, and could be repeated:"
            if checked.fits
            else "Blocks that keep the shape, and could be removed:",
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
        lines.append(f"Estimate: with all widths multiplied by {factor:.2f} it would fill the budget,")
        lines.append("because most parameters and MACs grow with the square of the widths.")
    return lines


def _room(checked: "Checked", block: Any) -> str:
    copies = checked.copies(block)
    if checked.fits:
        return f"{copies} more"
    return "no" if copies is None else f"remove {-copies} of {block.count}"

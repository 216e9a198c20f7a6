"""The table of the reported networks."""

from dataclasses import dataclass

from nas.budget import Budget, quick_macs
from nas.paths import shipped_names
from nas.space.space_file import CIFAR10, load_preset


@dataclass(frozen=True)
class PresetRow:
    name: str
    blocks: list[int]
    channels: list[int]
    block: str
    params: int
    macs: int
    fits: bool  # the budget that the report's authors had to keep to
    accuracy: float  # as reported, in [0, 1] …
    measured_on: str  # … and on which images


def report_presets() -> list[PresetRow]:
    rows = []
    for name in shipped_names("preset"):
        preset = load_preset(name)
        arch = preset.candidate.arch
        cost = Budget(preset.budget, CIFAR10).check(arch)
        rows.append(
            PresetRow(
                name=name,
                blocks=[stage.blocks for stage in arch.stages],
                channels=[stage.channels for stage in arch.stages],
                block=arch.block,
                params=cost.params,
                macs=quick_macs(arch, CIFAR10),
                fits=cost.fits,
                accuracy=preset.reported.accuracy,
                measured_on=preset.reported.measured_on,
            )
        )
    return rows

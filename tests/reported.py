"""Networks for tests: small ones, and the nine reported networks that fit five million parameters, with the counts that their
reports print or that fit them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from nas.config import ArchConfig


class Reported(NamedTuple):
    arch: ArchConfig
    params: int


def arch_of(*widths: int, blocks: int | Sequence[int] = 1, **fields: Any) -> ArchConfig:
    """A stage for each width; so many blocks in all of them, or in each."""
    counts = [blocks] * len(widths) if isinstance(blocks, int) else blocks
    stages = [{"blocks": count, "channels": width} for count, width in zip(counts, widths, strict=True)]
    return ArchConfig.model_validate({"stages": stages, **fields})


REPORTED: dict[str, Reported] = {
    "resnet-2322": Reported(arch_of(64, 128, 192, 256, blocks=[2, 3, 2, 2], dropout=0.2, dropout_place="stem+block"), 4_479_946),
    "resnet-443": Reported(arch_of(64, 128, 256, blocks=[4, 4, 3]), 4_697_162),
    "resnet-1111": Reported(arch_of(64, 128, 256, 512), 4_903_242),
    "resnet-2222-slim": Reported(arch_of(64, 128, 128, 128, blocks=2), 1_891_658),
    "resnet-3243-gelu": Reported(arch_of(32, 64, 128, 256, blocks=[3, 2, 4, 3], activation="gelu"), 4_587_690),
    "light-resnet18": Reported(
        arch_of(32, 64, 128, 256, blocks=2, block="preact", se_reduction=32, stochastic_depth=0.1), 2_809_480
    ),
    "light-resnet18-v2-40": Reported(
        arch_of(40, 80, 160, 320, blocks=2, block="preact", se_reduction=32, stochastic_depth=0.1), 4_387_210
    ),
    "light-resnet18-v2-45": Reported(
        arch_of(45, 90, 170, 340, blocks=2, block="preact", se_reduction=32, stochastic_depth=0.1), 4_997_489
    ),
    "robust-resnet64": Reported(arch_of(32, 64, 128, blocks=10, block="preact", dropout=0.1, dropout_place="block"), 3_800_362),
}

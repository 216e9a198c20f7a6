"""The nine reported networks that fit five million parameters, with the counts that their reports print or that fit them."""

from typing import NamedTuple

from nas.config import ArchConfig, BlockName, StageConfig


class Reported(NamedTuple):
    arch: ArchConfig
    params: int


def _network(block: BlockName, blocks: list[int], channels: list[int], **fields: object) -> ArchConfig:
    stages = tuple(StageConfig(blocks=b, channels=c) for b, c in zip(blocks, channels, strict=True))
    return ArchConfig.model_validate({"block": block, "stages": stages, **fields})


REPORTED: dict[str, Reported] = {
    "resnet-2322": Reported(
        _network("basic", [2, 3, 2, 2], [64, 128, 192, 256], dropout=0.2, dropout_place="stem+block"), 4_479_946
    ),
    "resnet-443": Reported(_network("basic", [4, 4, 3], [64, 128, 256]), 4_697_162),
    "resnet-1111": Reported(_network("basic", [1, 1, 1, 1], [64, 128, 256, 512]), 4_903_242),
    "resnet-2222-slim": Reported(_network("basic", [2, 2, 2, 2], [64, 128, 128, 128]), 1_891_658),
    "resnet-3243-gelu": Reported(_network("basic", [3, 2, 4, 3], [32, 64, 128, 256], activation="gelu"), 4_587_690),
    "light-resnet18": Reported(
        _network("preact", [2, 2, 2, 2], [32, 64, 128, 256], se_reduction=32, stochastic_depth=0.1), 2_809_480
    ),
    "light-resnet18-v2-40": Reported(
        _network("preact", [2, 2, 2, 2], [40, 80, 160, 320], se_reduction=32, stochastic_depth=0.1), 4_387_210
    ),
    "light-resnet18-v2-45": Reported(
        _network("preact", [2, 2, 2, 2], [45, 90, 170, 340], se_reduction=32, stochastic_depth=0.1), 4_997_489
    ),
    "robust-resnet64": Reported(_network("preact", [10, 10, 10], [32, 64, 128], dropout=0.1, dropout_place="block"), 3_800_362),
}

"""What every exported form computes: from images as they are to logits, as `nas submit` does."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.train.evaluate import TTA, require_tta


class Predictor(nn.Module):
    """Normalisation, network and test-time augmentation in one: uint8 (N, H, W, C) → float32 logits (N, classes)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float], tta: str) -> None:
        """Raises ConfigError for a `tta` that there is not."""
        require_tta(tta)
        super().__init__()
        self.model, self.tta = model, tta
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("scale", 1.0 / torch.tensor(std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        normalised = (images.float() - self.mean) * self.scale
        return TTA[self.tta](self.model, normalised.permute(0, 3, 1, 2))

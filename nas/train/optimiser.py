"""Optimisers by name. To add one: a function `(groups, TrainConfig, fused) -> Optimizer`, an entry in OPTIMISERS, its name in
`nas.config.OptimiserName`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nas.config import TrainConfig


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Weights of convolutions and linear layers decay; BatchNorm and biases only if the recipe says so (arXiv 1812.01187)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if config.decay_norm_and_bias:
        return [{"params": trained, "weight_decay": config.weight_decay}]
    weights = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    return [{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]


def _sgd(groups: list[dict[str, Any]], config: TrainConfig, fused: bool) -> torch.optim.Optimizer:
    nesterov = config.nesterov and config.momentum > 0
    return torch.optim.SGD(groups, lr=config.peak_lr, momentum=config.momentum, nesterov=nesterov, fused=fused)


def _adam(groups: list[dict[str, Any]], config: TrainConfig, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=config.peak_lr, fused=fused)


def _adamw(groups: list[dict[str, Any]], config: TrainConfig, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=config.peak_lr, fused=fused)


OPTIMISERS: dict[str, Callable[[list[dict[str, Any]], TrainConfig, bool], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}


def make_optimiser(model: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """Fused where torch has such kernels: on CUDA and the CPU."""
    fused = device.type in ("cuda", "cpu")
    return OPTIMISERS[config.optimiser](parameter_groups(model, config), config, fused)

"""Optimisers by name. To add one: a function `(groups, TrainConfig, How) -> Optimizer`, an entry in OPTIMISERS, its name in
`nas.config.OptimiserName`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas.config import TrainConfig
from nas.train.muon import ORTHOGONAL, Muon, turns
from nas.train.norm import BATCH_NORMS

RATE_FACTOR = "rate_factor"
"""Key of a group: what the schedule's rate is multiplied by there."""


@dataclass(frozen=True)
class How:
    """Steps are computed."""

    fused: bool
    """By torch's fused kernels."""
    dtype: torch.dtype
    """In which products may be taken that the gradients' precision does not hang on."""


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """The weights of convolutions and linear layers decay; BatchNorm and biases only if the recipe says so (arXiv 1812.01187).
    BatchNorm's biases have a group of their own where their rate has a factor, and so have the filters that Muon turns, without
    decay. The first group follows the schedule as it is."""
    turned = [m.weight for m in model.modules() if turns(m)] if config.optimiser == "muon" else []
    faster = {id(m.bias) for m in model.modules() if isinstance(m, BATCH_NORMS)} if config.norm_bias_lr != 1 else set()
    trained = [p for p in model.parameters() if p.requires_grad]
    apart = faster | {id(p) for p in turned}
    usual = [p for p in trained if id(p) not in apart]
    decay_of_norm = config.weight_decay if config.decay_norm_and_bias else 0.0
    if config.decay_norm_and_bias:
        groups = [{"params": usual, "weight_decay": config.weight_decay}]
    else:
        groups = [
            {"params": [p for p in usual if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in usual if p.ndim <= 1], "weight_decay": 0.0},
        ]
    if faster:
        biases = [p for p in trained if id(p) in faster]
        groups.append({"params": biases, "weight_decay": decay_of_norm / config.norm_bias_lr, RATE_FACTOR: config.norm_bias_lr})
    if turned:
        own = {"momentum": config.muon_momentum, "weight_decay": 0.0, RATE_FACTOR: config.muon_lr / config.lr}
        groups.append({"params": turned, ORTHOGONAL: True, **own})
    return groups


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get(RATE_FACTOR, 1.0)


def _sgd(groups: list[dict[str, Any]], config: TrainConfig, how: How) -> torch.optim.Optimizer:
    nesterov = config.nesterov and config.momentum > 0
    return torch.optim.SGD(groups, lr=config.peak_lr, momentum=config.momentum, nesterov=nesterov, fused=how.fused)


def _adam(groups: list[dict[str, Any]], config: TrainConfig, how: How) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=config.peak_lr, fused=how.fused)


def _adamw(groups: list[dict[str, Any]], config: TrainConfig, how: How) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=config.peak_lr, fused=how.fused)


def _muon(groups: list[dict[str, Any]], config: TrainConfig, how: How) -> torch.optim.Optimizer:
    return Muon(groups, config.peak_lr, config.momentum, config.nesterov, how.dtype)


OPTIMISERS: dict[str, Callable[[list[dict[str, Any]], TrainConfig, How], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
    "muon": _muon,
}


def make_optimiser(
    model: nn.Module, config: TrainConfig, device: torch.device, dtype: torch.dtype | None = None
) -> torch.optim.Optimizer:
    """Fused where torch has such kernels: on CUDA and the CPU. `dtype` is what products are taken in, by default float32."""
    how = How(device.type in ("cuda", "cpu"), dtype or torch.float32)
    return OPTIMISERS[config.optimiser](parameter_groups(model, config), config, how)

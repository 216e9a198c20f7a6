"""What a network costs, and whether it fits: parameters and multiply-adds by fvcore, memory computed, latency measured."""

from nas.budget.check import Budget, Cost
from nas.budget.counts import (
    Call,
    Layer,
    Part,
    calls_of,
    count_macs,
    count_params,
    follow,
    layers_of,
    peak_memory,
    quick_macs,
    quick_params,
    uncounted_products,
)
from nas.budget.latency import Write
from nas.budget.macs import FVCORE_FAILED, macs_of, params_of

__all__ = [
    "FVCORE_FAILED",
    "Budget",
    "Call",
    "Cost",
    "Layer",
    "Part",
    "Write",
    "calls_of",
    "count_macs",
    "count_params",
    "follow",
    "layers_of",
    "macs_of",
    "params_of",
    "peak_memory",
    "quick_macs",
    "quick_params",
    "uncounted_products",
]

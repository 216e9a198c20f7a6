"""What a network costs, and whether it fits: parameters and multiply-adds by fvcore, memory computed, latency measured."""

from nas.budget.check import Budget, Cost
from nas.budget.counts import Macs, count_macs, count_params, macs_of, params_of, quick_macs, quick_params
from nas.budget.layers import Call, Layer, Part, calls_of, layers_of
from nas.budget.measured import Write
from nas.budget.memory import Followed, follow, peak_memory

__all__ = [
    "Budget",
    "Call",
    "Cost",
    "Followed",
    "Layer",
    "Macs",
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
]

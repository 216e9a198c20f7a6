"""What a network costs, and whether it fits: parameters and multiply-adds by fvcore, memory computed, latency measured."""

from nas.budget.check import Budget, Cost
from nas.budget.counts import count_macs, count_params, quick_macs
from nas.budget.measured import Write
from nas.budget.memory import peak_memory
from nas.config import LIMIT_NAMES

__all__ = ["LIMIT_NAMES", "Budget", "Cost", "Write", "count_macs", "count_params", "peak_memory", "quick_macs"]

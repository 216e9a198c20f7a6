"""The cost of a network, and whether it fits: counted by fvcore, computed (memory, flash, RAM), or measured (latency)."""

from nas.budget.check import COMPUTED, Budget, Cost
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
from nas.budget.int8 import Int8Size, count_flash, count_ram, int8_size
from nas.budget.latency import Write
from nas.budget.macs import FVCORE_FAILED, macs_of, params_of

"""Samplers by name: how the next candidate is drawn from a study.

To add one: a class in a file of its own that derives from `SeededSampler` (and from `Informed`, where it reads complete trials
only), whose keyword arguments carry their types and limits, and an entry here. The conformance tests then find it.
"""

from nas.search.samplers.base import SeededSampler
from nas.search.samplers.cmaes import Cmaes
from nas.search.samplers.evolution import Evolution
from nas.search.samplers.gp import Gp
from nas.search.samplers.qmc import Qmc
from nas.search.samplers.random import Random
from nas.search.samplers.tpe import Tpe

SAMPLERS: dict[str, type[SeededSampler]] = {
    "tpe": Tpe,
    "random": Random,
    "gp": Gp,
    "qmc": Qmc,
    "cmaes": Cmaes,
    "evolution": Evolution,
}

__all__ = ["SAMPLERS", "SeededSampler"]

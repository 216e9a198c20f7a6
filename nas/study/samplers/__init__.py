"""Samplers by name: how the next candidate is drawn from a study.

To add one: a class in a file of its own that derives from `SeededSampler` (and from `Informed`, where it reads complete trials
only), whose keyword arguments carry their types and limits, and an entry here. The conformance tests then find it.
"""

from nas.study.samplers.base import SeededSampler
from nas.study.samplers.cmaes import Cmaes
from nas.study.samplers.evolution import Evolution
from nas.study.samplers.gp import Gp
from nas.study.samplers.qmc import Qmc
from nas.study.samplers.random import Random
from nas.study.samplers.tpe import Tpe

SAMPLERS: dict[str, type[SeededSampler]] = {
    "tpe": Tpe,
    "random": Random,
    "gp": Gp,
    "qmc": Qmc,
    "cmaes": Cmaes,
    "evolution": Evolution,
}

__all__ = ["SAMPLERS", "SeededSampler"]

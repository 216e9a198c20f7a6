"""Samplers by name: how the next candidate is drawn from a study.

To add one: a dataclass that derives from `SeededSampler` (from `Informed` for one of Optuna's), whose fields have types and
limits, and an entry here. The conformance tests then find it.
"""

from nas.study.samplers.base import SeededSampler, ask
from nas.study.samplers.optunas import Cmaes, Gp, Random, Tpe
from nas.study.samplers.own import Evolution, Qmc

SAMPLERS: dict[str, type[SeededSampler]] = {
    "tpe": Tpe,
    "random": Random,
    "gp": Gp,
    "qmc": Qmc,
    "cmaes": Cmaes,
    "evolution": Evolution,
}

__all__ = ["SAMPLERS", "SeededSampler", "ask"]

"""Pruners by name: they stop weak trials early.

To add one: a class that derives from `FairPruner`, whose keyword arguments have types and limits, and an entry here. The
conformance tests then find it.
"""

from nas.study.pruners.asha import REDUCTION, Asha, Hyperband, asha_rungs
from nas.study.pruners.base import FairPruner
from nas.study.pruners.optunas import Median, Never, Patient, Percentile

PRUNERS: dict[str, type[FairPruner]] = {
    "asha": Asha,
    "hyperband": Hyperband,
    "median": Median,
    "percentile": Percentile,
    "patient": Patient,
    "none": Never,
}

__all__ = ["PRUNERS", "REDUCTION", "FairPruner", "asha_rungs"]

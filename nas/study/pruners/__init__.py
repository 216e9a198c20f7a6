"""Pruners by name: who is stopped before the end of its training.

To add one: a class that derives from `FairPruner`, whose keyword arguments carry their types and limits, and an entry here. The
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

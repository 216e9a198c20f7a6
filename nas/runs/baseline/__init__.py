"""Known networks, a class in a user's file or a model of torchvision, trained as a network of a study is, on the same images.

They are rows to compare with: none of them is a network of the study's, and none is ever handed over.
"""

from nas.foreign.known import KnownNetwork
from nas.runs.baseline.card import BaselineCard, finished_baselines, read_baseline
from nas.runs.baseline.order import BaselineOrder, Definition
from nas.runs.baseline.results import Comparison, Row, find_comparisons
from nas.runs.baseline.run import BaselinePlan, Done, load_baseline, train_baselines

__all__ = [
    "BaselineCard",
    "BaselineOrder",
    "BaselinePlan",
    "Comparison",
    "Definition",
    "Done",
    "KnownNetwork",
    "Row",
    "find_comparisons",
    "finished_baselines",
    "load_baseline",
    "read_baseline",
    "train_baselines",
]

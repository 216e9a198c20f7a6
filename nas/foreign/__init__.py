"""Networks that are not ours, a class in a user's file or a model of torchvision: measured in a process of their own."""

from nas.foreign.build import ForeignName, foreign_name
from nas.foreign.inspection import inspect_network
from nas.foreign.measure import ForeignFacts, Repeat

__all__ = ["ForeignFacts", "ForeignName", "Repeat", "foreign_name", "inspect_network"]

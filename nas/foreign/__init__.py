"""Networks that are not ours, a class in a user's file or a model of torchvision: measured in a process of their own."""

from nas.foreign.facts import ForeignFacts, Repeat
from nas.foreign.name import ForeignName, foreign_name
from nas.foreign.process import inspect_network

__all__ = ["ForeignFacts", "ForeignName", "Repeat", "foreign_name", "inspect_network"]

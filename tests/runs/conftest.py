"""Fixtures of this room's tests."""

from tests.runs.known import here, mine
from tests.runs.told import trained_here

__all__ = ["here", "mine", "trained_here"]

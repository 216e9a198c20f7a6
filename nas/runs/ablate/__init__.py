"""What each choice is worth: a base network trained beside variants of it, by the same seeds, and their paired differences."""

from nas.runs.ablate.design import Definition, Factor, Variant
from nas.runs.ablate.results import Ablation, Row, find_ablations, read_ablation
from nas.runs.ablate.run import AblationPlan, Done, run_ablation

__all__ = [
    "Ablation",
    "AblationPlan",
    "Definition",
    "Done",
    "Factor",
    "Row",
    "Variant",
    "find_ablations",
    "read_ablation",
    "run_ablation",
]

"""Pruners by name. A pruner is asked after each epoch but the last, so that no trial is pruned at its very end."""

from collections.abc import Callable

import optuna

REDUCTION = 3


def asha_rungs(epochs: int) -> list[int]:
    """The epochs after which two thirds are pruned: about a ninth and a third of the whole, none of them the last."""
    # Rounded up: rounded down, a third rung would lie just below the end.
    rung, rungs = -(-epochs // REDUCTION**2), []
    while rung < epochs:
        rungs.append(rung)
        rung *= REDUCTION
    return rungs


def asha(epochs: int) -> optuna.pruners.BasePruner:
    """Asynchronous successive halving (arXiv 1810.05934): at each rung the best third goes on."""
    first = asha_rungs(epochs)[0] if epochs > 1 else 1
    return optuna.pruners.SuccessiveHalvingPruner(
        min_resource=first, reduction_factor=REDUCTION, min_early_stopping_rate=0, bootstrap_count=0
    )


PRUNERS: dict[str, Callable[[int], optuna.pruners.BasePruner]] = {"asha": asha}

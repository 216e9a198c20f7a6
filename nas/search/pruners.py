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


class SuccessiveHalving(optuna.pruners.BasePruner):
    """Asynchronous successive halving (arXiv 1810.05934): of those that have reached a rung so far the best third goes on.

    A verdict follows from the curves alone and writes nothing, unlike that of Optuna's pruner of this name, which marks the rung
    as passed first: after a crash in between, a trial that was to be pruned would be spared.
    """

    def __init__(self, epochs: int) -> None:
        self.rungs = asha_rungs(epochs)

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        rung = trial.last_step
        if rung not in self.rungs:
            return False
        reached = [
            other.intermediate_values[rung]
            for other in study.get_trials(deepcopy=False)
            if rung in other.intermediate_values and "duplicate_of" not in other.user_attrs
        ]
        promoted = max(1, len(reached) // REDUCTION)
        return trial.intermediate_values[rung] < sorted(reached, reverse=True)[promoted - 1]


PRUNERS: dict[str, Callable[[int], optuna.pruners.BasePruner]] = {"asha": SuccessiveHalving}

"""Where successive halving looks, and whom it stops."""

import itertools

import optuna
import pytest

from nas.search.pruners import PRUNERS, REDUCTION, asha, asha_rungs


@pytest.mark.parametrize("epochs", range(1, 41))
def test_rungs_lie_below_the_last_epoch_and_the_pruner_uses_just_these(epochs: int) -> None:
    rungs = asha_rungs(epochs)
    assert all(1 <= rung < epochs for rung in rungs)
    assert len(rungs) <= 2
    assert all(later == REDUCTION * earlier for earlier, later in itertools.pairwise(rungs))
    study = optuna.create_study(direction="maximize", pruner=asha(epochs))
    trial = study.ask()
    looked_at = []
    for epoch in range(1, epochs):  # as the coordinator does: it does not ask after the last one
        trial.report(0.5, epoch)
        before = len(completed(study))
        assert not trial.should_prune(), "the first one has nobody to be compared with"
        if len(completed(study)) > before:
            looked_at.append(epoch)
    assert looked_at == rungs


def completed(study: optuna.Study) -> list[str]:
    return [key for key in study.get_trials()[0].system_attrs if key.startswith("completed_rung")]


@pytest.mark.parametrize(("epochs", "rungs"), [(1, []), (2, [1]), (9, [1, 3]), (10, [2, 6]), (18, [2, 6]), (40, [5, 15])])
def test_rungs_are_about_a_ninth_and_a_third_of_the_whole(epochs: int, rungs: list[int]) -> None:
    assert asha_rungs(epochs) == rungs


def test_at_a_rung_only_the_best_third_goes_on() -> None:
    study = optuna.create_study(direction="maximize", pruner=PRUNERS["asha"](18))
    gone_on = []
    for accuracy in (0.50, 0.60, 0.55, 0.40, 0.58, 0.61, 0.59, 0.70, 0.30):
        trial = study.ask()
        trial.report(accuracy / 2, 1)
        assert not trial.should_prune(), "epoch 1 is no rung"
        trial.report(accuracy, 2)
        stopped = trial.should_prune()
        if not stopped:
            gone_on.append(accuracy)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert gone_on == [0.50, 0.60, 0.61, 0.70]

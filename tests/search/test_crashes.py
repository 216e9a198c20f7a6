"""The coordinator's process may die at any moment. Wherever it does, the next run ends as if nothing had happened."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest

from nas.search.outcomes import COUNTED
from tests.search.scripted import EPOCHS, FakeDisplay, Life, PruneAfter

WRITES = (
    "create_new_trial",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
)
GOAL = 4
# An ordinary one, its twin while it runs, one over budget, a pruned, a diverged, a failing and again ordinary ones.
CHANNELS = (10, 10, 90, 20, 30, 40, 10, 45, 46, 47, 48)
LIVES = {
    4: Life(curve=(0.5,), end="diverged"),
    5: Life(curve=(0.5,), end="failed"),
}


class Crash(BaseException):
    pass


class CrashingStorage(optuna.storages.InMemoryStorage):
    """Its process dies at one of the writes to it, before that or just after."""

    def __init__(self, at: int, after: bool) -> None:
        super().__init__()
        self.left, self.after = at, after
        self.writes = 0


def _crashing(name: str) -> Callable[..., Any]:
    real = getattr(optuna.storages.InMemoryStorage, name)

    def write(self: CrashingStorage, *arguments: Any, **named: Any) -> Any:
        self.writes += 1
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Crash
        result = real(self, *arguments, **named)
        if self.left == 0:
            raise Crash
        return result

    return write


for _name in WRITES:
    setattr(CrashingStorage, _name, _crashing(_name))


def writes_of_a_whole_search(bench: Callable[..., Any]) -> int:
    storage = CrashingStorage(0, False)
    bench(*CHANNELS, storage=storage, pruner=PruneAfter({3: 2})).run(GOAL, LIVES, workers=2)
    return storage.writes


def check_whole(b: Any) -> None:
    trials, ended = b.trials, b.outcomes
    assert sum(outcome in COUNTED for outcome in ended) == GOAL, ended
    assert "(RUNNING)" not in ended
    digests = [t.user_attrs["digest"] for t, outcome in zip(trials, ended, strict=True) if outcome in COUNTED]
    assert len(set(digests)) == len(digests), "no network was trained twice"
    assert len(set(b.world.trained)) == len(b.world.trained), "and no epoch of one"
    for trial, outcome in zip(trials, ended, strict=True):
        if outcome == "trained":
            assert trial.intermediate_values == {1: 0.5, 2: 0.6, 3: 0.7}
            assert trial.value == 0.7
        elif outcome == "over_budget":
            assert trial.constraints["params"] > 0
        elif outcome == "diverged":
            assert trial.constraints == {"divergence": 1.0}
        elif outcome == "duplicate":
            twin = trials[trial.user_attrs["duplicate_of"]]
            assert (trial.state, trial.values, trial.intermediate_values) == (twin.state, twin.values, twin.intermediate_values)
        elif outcome == "failed":
            assert b.paths.trial(trial.number).error.exists()
        assert trial.last_step is None or trial.last_step <= EPOCHS


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_write_to_the_storage_loses_nothing(bench: Callable[..., Any], after: bool, tmp_path: Any) -> None:
    writes = writes_of_a_whole_search(bench)
    assert writes > 60
    for at in range(1, writes + 1):
        b = bench(*CHANNELS, storage=CrashingStorage(at, after), pruner=PruneAfter({3: 2}))
        b.paths = type(b.paths)(tmp_path / f"crash-{at}")
        try:
            with pytest.raises(Crash):
                b.run(GOAL, LIVES, workers=2)
            b.display = FakeDisplay()
            b.run(GOAL, LIVES, workers=2)
            check_whole(b)
        except AssertionError as error:
            raise AssertionError(f"after a crash {'after' if after else 'before'} write {at} of {writes}: {error}") from error


def test_crash_after_crash_after_crash_ends_all_the_same(bench: Callable[..., Any]) -> None:
    storage = CrashingStorage(40, True)
    b = bench(*CHANNELS, storage=storage, pruner=PruneAfter({3: 2}))
    for _ in range(100):
        try:
            b.run(GOAL, LIVES, workers=2)
            break
        except Crash:
            storage.left = 40
    check_whole(b)

"""The coordinator's process may die at any moment. Wherever it does, the next run ends as if nothing had happened."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest

from nas.study.outcomes import COUNTED
from nas.study.pruners import Asha
from nas.study.samplers import SAMPLERS, STARTUP_TRIALS
from tests.study.sabotage import told
from tests.study.scripted import EPOCHS, FakeDisplay, Life, PruneAfter

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


def accuracy_of(order: Any) -> Life:
    """A training whose result follows from its network alone."""
    channels = order.network.stages[0].channels
    if channels % 7 == 0:
        return Life(curve=(channels / 200,), end="diverged")
    return Life(curve=(channels / 200, channels / 150, channels / 100))


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_with_one_worker_a_crash_changes_no_draw_and_no_verdict(
    bench: Callable[..., Any], after: bool, step: int, tmp_path: Any
) -> None:
    """The study is the same as that of a search that nothing happened to, draw for draw; TPE has begun to learn by then."""
    goal = 16

    def run(b: Any) -> None:
        b.run(goal, accuracy_of)

    def new_bench(storage: Any) -> Any:
        return bench(storage=storage, sampler=SAMPLERS["tpe"](), pruner=Asha(EPOCHS))

    undisturbed = new_bench(CrashingStorage(0, after))
    run(undisturbed)
    assert len(undisturbed.trials) > STARTUP_TRIALS, "the sampler has begun to learn"
    assert {"pruned_early", "trained", "over_budget"} <= set(undisturbed.outcomes)
    writes = undisturbed.storage.writes
    for at in range(1 + after, writes + 1, step):
        b = new_bench(CrashingStorage(at, after))
        b.paths = type(b.paths)(tmp_path / f"crash-{at}")
        with pytest.raises(Crash):
            run(b)
        b.sampler = SAMPLERS["tpe"]()
        run(b)
        assert told(b.trials) == told(undisturbed.trials), (
            f"after a crash {'after' if after else 'before'} write {at} of {writes}"
        )

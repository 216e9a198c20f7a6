"""The source of a search and its runner, with scripted workers: what is asked, handed out, told, and in which order."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from nas.budget import Cost
from nas.config import ArchConfig, Candidate, StudyConfig
from nas.device import SMALLEST_MICRO_BATCH
from nas.errors import BudgetError, NasError, StudyError
from nas.jobs import crew, runner
from nas.jobs.messages import Alive, Began, Broken, Died, Suspend, Unfit
from nas.study import drawing, source
from nas.study.samplers import SAMPLERS
from nas.study.trials import TrialRecord
from nas.train.loop import EpochProgress
from tests.study.scripted import EPOCHS, Life, PruneAfter, StubBudget, has_reported

MakeBench = Callable[..., Any]


# ------------------------------------------------------------------------------------------------------ the trial budget


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_exactly_as_many_train_as_were_asked_for_over_all_runs_of_a_study(bench: MakeBench, workers: int) -> None:
    b = bench()
    progress = b.run(2, workers=workers).progress
    assert progress.trained == progress.trained_here == 2
    progress = b.run(5, workers=workers).progress
    assert (progress.trained, progress.trained_here) == (5, 3)
    assert b.outcomes == ["trained"] * 5
    assert b.submitted == [2, 3, 4]
    assert len(b.world.trained) == 15
    for goal in (5, 4):  # was reached
        b.run(goal)
        assert (len(b.trials), b.submitted) == (5, [])


def test_no_training_begins_once_the_compute_is_spent_over_all_runs(bench: MakeBench) -> None:
    b = bench()
    epoch = 6 * 1 * 100  # operations of one, for a network of one multiply-add
    first = b.run(100, images=100, most_flop=EPOCHS * epoch + 1)
    assert (b.outcomes, first.source.spent) == (["trained"] * 2, 2 * EPOCHS * epoch), "what has begun ends"
    again = b.run(100, images=100, most_flop=2 * EPOCHS * epoch)
    assert (len(b.trials), again.source.spent) == (2, 2 * EPOCHS * epoch)
    b.run(100, images=100, most_flop=2 * EPOCHS * epoch + 1)
    assert b.outcomes == ["trained"] * 3
    records = [TrialRecord.of(trial, 100) for trial in b.trials]
    assert [record.row()["flop"] for record in records] == [EPOCHS * epoch] * 3
    assert TrialRecord.of(b.trials[0]).flop is None, "of a study from before its images were recorded"


def test_every_training_takes_the_same_compute(bench: MakeBench) -> None:
    class CostlyBudget(StubBudget):
        def check(self, arch: ArchConfig) -> Cost:
            return replace(super().check(arch), macs=arch.stages[0].channels)

    b, config = bench(10, 20, 50, budget=CostlyBudget()), StudyConfig(trial_compute=36_000.0)
    search = b.run(3, images=1000, config=config)
    images = [Candidate.from_file(b.paths.trial(number).candidate).train.epoch_images for number in range(3)]
    assert images == [200, 100, 40], "36,000 operations are 6 × 10 MACs × 3 epochs × 200 images"
    assert [TrialRecord.of(trial, 1000).flop for trial in b.trials] == [36_000.0] * 3
    assert search.source.spent == search.progress.flop_here == 3 * 36_000
    again = b.coordinator(3, images=1000, config=config, most_flop=200_000.0)
    assert (again.source.spent, again.progress.flop_here, again.progress.flop_left) == (3 * 36_000, 0.0, 200_000 - 3 * 36_000)


def test_pruned_and_diverged_networks_count_and_failed_ones_do_not(bench: MakeBench) -> None:
    b = bench(pruner=PruneAfter({0: 1}))
    b.run(3, {1: Life(curve=(0.5,), end="diverged"), 2: Life(curve=(), end="failed")})
    assert b.outcomes == ["pruned_early", "diverged", "failed", "trained"]


def test_every_trial_is_described_and_keeps_its_candidate(bench: MakeBench) -> None:
    b = bench(10, 20)
    b.run(2)
    fixed = {slot.name: slot.domain for slot in b.space.slots if not slot.drawn}
    for trial, channels in zip(b.trials, (10, 20), strict=True):
        assert trial.user_attrs["params"] == channels * 100
        assert len(trial.user_attrs["digest"]) == 16
        assert f"× {channels} " in trial.user_attrs["architecture"]
        candidate = b.space.candidate(dict.fromkeys((s.name for s in b.space.slots), None) | fixed | trial.params)
        assert b.paths.trial(trial.number).candidate.read_text() == candidate.to_json()


def test_each_trial_has_a_seed_of_its_own(bench: MakeBench) -> None:
    seeds = set()
    for seed in (0, 1):
        b = bench()
        b.run(3, seed=seed)
        seeds |= {order.seed for order in b.executor.submitted}
    assert len(seeds) == 6


# ---------------------------------------------------------------------------------------- over budget, and drawn twice


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stage0.channels": "many"}, ["stage0.channels is 'many'", "int 1 to 100"]),
        ({"stage0.channels": 500}, ["stage0.channels is 500", "int 1 to 100"]),
        ({"channels": 8}, ["no parameter 'channels'", "stage0.channels"]),
    ],
)
def test_a_trial_enqueued_with_what_the_space_does_not_hold_fails_with_its_reason(
    bench: MakeBench, given: dict[str, Any], words: list[str]
) -> None:
    b = bench()
    b.run(1)
    study = optuna.load_study(study_name="study", storage=b.storage)
    study.enqueue_trial(given)
    study.enqueue_trial({"stage0.channels": 33})
    b.run(3)
    assert b.outcomes == ["trained", "failed", "trained", "trained"]
    assert b.trials[1].state == TrialState.FAIL
    assert all(word in b.trials[1].user_attrs["reason"] and word in b.display.notes[-1] for word in words)
    assert b.trials[2].params == {"stage0.channels": 33}
    assert b.submitted == [2, 3]


def test_one_that_an_earlier_run_had_taken_up_fails_too_and_so_does_one_of_another_range(bench: MakeBench) -> None:
    b = bench()
    b.run(1)
    study = optuna.load_study(study_name="study", storage=b.storage)
    study.enqueue_trial({"stage0.channels": None})
    study.ask()
    few = {"stage0.channels": optuna.distributions.CategoricalDistribution([8, 16])}
    study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, params={"stage0.channels": 8}, distributions=few))
    b.run(2)
    assert b.outcomes == ["trained", "failed", "failed", "trained"]


def test_what_is_over_budget_is_told_at_once_and_never_trained(bench: MakeBench) -> None:
    b = bench(80, 10, 51, 50, 99, 20)
    progress = b.run(3).progress
    assert b.outcomes == ["over_budget", "trained", "over_budget", "trained", "over_budget", "trained"]
    assert {number for number, _ in b.world.trained} == {1, 3, 5}
    assert progress.counts["over_budget"] == 3
    for number in (0, 2, 4):
        trial = b.trials[number]
        assert trial.state.name == "PRUNED"
        assert trial.constraints["params"] > 0
        assert not b.paths.trial(number).folder.exists()
    assert all(not b.trials[number].constraints for number in (1, 3, 5))


class TimedBudget(StubBudget):
    """Times each network once; whoever trains meanwhile would slow it down."""

    def __init__(self) -> None:
        super().__init__()
        self.bench: Any = None
        self.timed: list[int] = []

    def needs_idle_machine(self, arch: ArchConfig) -> bool:
        return arch.stages[0].channels not in self.timed

    def check(self, arch: ArchConfig) -> Cost:
        if self.needs_idle_machine(arch):
            assert self.bench.executor.quiet
            self.timed.append(arch.stages[0].channels)
        return super().check(arch)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_network_is_timed_while_nobody_trains(bench: MakeBench, workers: int) -> None:
    channels = [10, 80, 20, 30, 10, 99, 40, 45, 15]
    b = bench(*channels, budget=TimedBudget())
    b.budget.bench = b
    b.run(6, workers=workers)
    assert b.budget.timed == [10, 80, 20, 30, 99, 40, 45, 15][: len(b.budget.timed)]
    assert [outcome for outcome in b.outcomes if outcome != "(RUNNING)"].count("trained") == 6
    assert not b.executor.paused
    assert b.world.trained == sorted(set(b.world.trained), key=b.world.trained.index), "no epoch twice"


def test_a_search_that_is_stopped_while_it_waits_for_quiet_goes_on_with_that_draw(bench: MakeBench) -> None:
    b = bench(10, 20, 30, 40, budget=TimedBudget())
    b.budget.bench = b
    first = b.coordinator(4)
    b.stop_when(lambda progress: bool(b.executor.paused), first)
    first.run()
    assert not b.executor.paused
    b.run(4)
    assert b.outcomes == ["trained"] * 4
    assert [trial.params["stage0.channels"] for trial in b.trials] == [10, 20, 30, 40]


def test_too_many_over_budget_in_a_row_end_the_search_and_name_the_ranges(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "MAX_OVER_BUDGET_IN_A_ROW", 3)
    b = bench(90, 90, 10, 90, 90, 11, 90, 90, 12, *[90] * 20)
    b.run(3)
    assert b.outcomes.count("trained") == 3, "one that fits begins the row anew"
    with pytest.raises(BudgetError) as caught:
        b.run(4)
    assert "3 candidates in a row" in caught.value.message
    assert "stage0.channels" in str(caught.value.hint)
    assert "--max-params" in str(caught.value.hint)
    assert b.outcomes.count("over_budget") == 9


def test_a_duplicate_of_a_finished_trial_gets_its_result_at_once(bench: MakeBench) -> None:
    b = bench(10, 20, 10, 30)
    b.run(3, {0: Life(curve=(0.3, 0.4, 0.9))})
    assert b.outcomes == ["trained", "trained", "duplicate", "trained"]
    twin, duplicate = b.trials[0], b.trials[2]
    assert (duplicate.value, duplicate.intermediate_values) == (0.9, twin.intermediate_values)
    assert duplicate.user_attrs["duplicate_of"] == 0
    assert 2 not in b.submitted


@pytest.mark.parametrize("end", ["finished", "diverged", "pruned"])
def test_a_duplicate_of_a_running_trial_waits_for_its_result(bench: MakeBench, end: str) -> None:
    b = bench(10, 10, 20, pruner=PruneAfter({0: 2} if end == "pruned" else {}))
    seen = []
    b.display.on_update = lambda progress: seen.append(b.outcomes[:2])
    b.run(2, {0: Life(curve=(0.3, 0.4), end="diverged") if end == "diverged" else Life()})
    twin, duplicate = b.trials[:2]
    assert ["(RUNNING)", "(RUNNING)"] in seen
    assert b.outcomes[1:] == ["duplicate", "trained"]
    assert (twin.state, twin.values, twin.constraints) == (duplicate.state, duplicate.values, duplicate.constraints)
    assert twin.intermediate_values == duplicate.intermediate_values


def test_a_duplicate_of_one_that_fails_fails_too_and_the_next_is_trained(bench: MakeBench) -> None:
    b = bench(10, 10, 20, 10)
    b.run(2, {0: Life(curve=(0.3,), end="failed")})
    assert b.outcomes == ["failed", "duplicate", "trained", "trained"]
    assert b.trials[1].state.name == "FAIL"


@pytest.mark.parametrize(("channels", "workers"), [((10, 20), 1), ((10, 20, 30), 2)])
def test_a_space_that_only_repeats_itself_is_exhausted(
    bench: MakeBench, channels: tuple[int, ...], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "MAX_DUPLICATES_IN_A_ROW", 6)
    b = bench(*channels, *[10, 20] * 20)
    coordinator = b.run(10, workers=workers)
    assert coordinator.source.exhausted
    assert coordinator.progress.trained == len(channels), "also what was drawn before"
    assert any("exhausted" in note for note in b.display.notes)
    assert "(RUNNING)" not in b.outcomes, "the duplicates that waited have ended with their twins"


# --------------------------------------------------------------------------------------------------------------- pruning


def test_that_a_trial_is_pruned_is_recorded_before_its_worker_is_told(bench: MakeBench) -> None:
    b = bench(pruner=PruneAfter({0: 1, 2: 2}))
    b.run(3)
    assert b.executor.verdicts == [
        (0, False, "pruned_early"),
        (1, True, None),
        (1, True, None),
        (1, True, None),
        (2, True, None),
        (2, False, "pruned_early"),
    ]
    assert b.trials[0].intermediate_values == {1: 0.5}
    assert (0, 2) not in b.world.trained
    assert not b.paths.trial(0).checkpoint.exists()


def test_nothing_is_pruned_after_its_last_epoch(bench: MakeBench) -> None:
    b = bench(pruner=PruneAfter(dict.fromkeys(range(10), EPOCHS)))
    b.run(2)
    assert b.outcomes == ["trained", "trained"]
    assert {epoch for _, epoch in b.pruner.asked} == {1, 2}


def test_a_diverged_network_is_infeasible_and_a_trained_ones_value_its_last_averaged_accuracy(bench: MakeBench) -> None:
    b = bench()
    b.run(2, {0: Life(curve=(0.99,), end="diverged"), 1: Life(curve=(0.5, 0.9, 0.8))})
    assert b.trials[0].constraints == {"divergence": 1.0}
    assert b.trials[1].value == 0.8
    assert b.trials[1].intermediate_values == {1: 0.5, 2: 0.9, 3: 0.8}
    best = b.coordinator(2).progress.best
    assert (best.number, best.accuracy) == (1, 0.8), "known at once"


# --------------------------------------------------------------------------------------------------- failures and deaths


def test_a_failure_leaves_its_traceback_and_the_search_goes_on(bench: MakeBench) -> None:
    b = bench()
    b.run(2, {0: Life(curve=(0.5,), end="failed")})
    assert b.outcomes == ["failed", "trained", "trained"]
    text = b.paths.trial(0).error.read_text()
    assert "RuntimeError: out of luck" in text
    assert "Traceback: somewhere" in text
    assert b.trials[0].user_attrs["reason"] == "RuntimeError: out of luck"
    assert any(str(b.paths.trial(0).error) in note for note in b.display.notes)


def test_five_failures_in_a_row_end_the_search(bench: MakeBench) -> None:
    b = bench()
    with pytest.raises(StudyError, match="5 trials in a row failed, the last with: RuntimeError: out of luck"):
        b.run(10, {n: Life(curve=(), end="failed") for n in range(20) if n != 4})
    assert b.outcomes[:10] == ["failed"] * 4 + ["trained"] + ["failed"] * 5
    assert b.submitted == list(range(10))
    b.run(2)  # with what was wrong put right, it goes on, and begins with the one drawn ahead
    assert b.outcomes[10:] == ["trained"]


def test_a_dead_workers_trial_goes_on_first_and_from_its_checkpoint(bench: MakeBench) -> None:
    b = bench()
    b.run(2, {0: Life(deaths=(2,))})
    assert b.submitted == [0, 0, 1]
    assert b.executor.restarted == [0]
    assert b.outcomes == ["trained", "trained"]
    assert b.world.trained == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    assert any("SIGKILL" in note and "trial 0" in note for note in b.display.notes)


def test_a_trial_that_kills_three_workers_has_failed(bench: MakeBench) -> None:
    b = bench()
    b.run(1, {0: Life(deaths=(1, 1, 1))})
    assert b.submitted == [0, 0, 0, 1]
    assert b.outcomes == ["failed", "trained"]
    assert "died 3 times" in b.paths.trial(0).error.read_text()


def test_a_death_after_the_verdict_costs_nothing(bench: MakeBench) -> None:
    """The trial has been told; only its worker is replaced."""
    b = bench(pruner=PruneAfter({0: 1}))
    coordinator = b.coordinator(2)
    real = b.executor._train

    def die_when_stopped(worker: int, order: Any) -> Any:
        for message in (training := real(worker, order)):
            while True:
                answer = yield message
                message = training.send(answer)
                if int(order.key) == 0 and answer is False:
                    message = Died("exit code 1")

    b.executor._train = die_when_stopped
    coordinator.run()
    assert b.outcomes == ["pruned_early", "trained"]
    assert b.submitted == [0, 1]
    assert b.executor.restarted == [0]
    assert not b.paths.trial(0).checkpoint.exists()


def test_a_worker_that_dies_three_times_before_it_is_ready_ends_the_search(bench: MakeBench) -> None:
    b = bench()
    coordinator = b.coordinator(2)
    b.executor.still_born = {0: 3}
    with pytest.raises(StudyError, match=r"worker 0 died 3 times before it trained anything \(exit code 3\)"):
        coordinator.run()
    assert b.executor.restarted == [0, 0]
    coordinator = b.coordinator(2)
    b.executor.still_born = {0: Unfit("no such data", "get it")}
    with pytest.raises(NasError) as caught:
        coordinator.run()
    assert (caught.value.message, caught.value.hint) == ("no such data", "get it")
    coordinator = b.coordinator(2)
    b.executor.still_born = {0: 2}  # are forgiven
    coordinator.run()
    assert b.outcomes == ["trained", "trained"]


def test_the_search_goes_on_without_a_worker_that_cannot_start(bench: MakeBench) -> None:
    b = bench()
    coordinator = b.coordinator(3, workers=2)
    b.executor.still_born = {1: 3}
    coordinator.run()
    assert b.outcomes == ["trained"] * 3
    assert any("worker 1 cannot start; the others continue" in note for note in b.display.notes)


def test_a_worker_that_dies_idle_is_replaced(bench: MakeBench) -> None:
    b = bench()
    coordinator = b.coordinator(1, workers=2)
    b.once(lambda progress: bool(progress.running), lambda: b.executor.break_off(1, Died("SIGKILL")))
    coordinator.run()
    assert b.outcomes == ["trained"]
    assert b.executor.restarted == [1]


# ------------------------------------------------------------------------------------------------ suspended and resumed


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_suspended_stays_running_and_goes_on_under_its_own_number(bench: MakeBench, workers: int) -> None:
    b = bench()
    coordinator = b.cut_off(4, workers=workers, epoch=1)
    assert coordinator.runner.suspended
    interrupted = [n for n, outcome in enumerate(b.outcomes) if outcome == "(RUNNING)"]
    assert len(interrupted) == 2 * workers, "one in training and one drawn ahead for each worker"
    assert any("suspended" in note for note in b.display.notes)
    before = len(b.world.trained)
    b.run(4, workers=workers)
    assert b.submitted[: len(interrupted)] == interrupted
    assert b.outcomes == ["trained"] * 4
    assert len(b.world.trained) == 12 == len(set(b.world.trained)), "no epoch was trained twice"
    assert before < 12
    assert any("trial 0 resumes after epoch" in note for note in b.display.notes)


def test_a_suspension_before_anything_trains_loses_nothing(bench: MakeBench) -> None:
    b = bench()
    coordinator = b.coordinator(2)
    coordinator.stop.request()
    coordinator.run()
    coordinator = b.coordinator(2, deadline=time.monotonic() - 1)
    coordinator.run()
    assert coordinator.runner.suspended
    assert (b.world.trained, b.trials, b.submitted, b.display.notes) == ([], [], [], ["the time is up"])
    b.run(2)
    assert b.outcomes == ["trained"] * 2


def test_a_death_while_suspending_leaves_the_trial_for_the_next_run(bench: MakeBench) -> None:
    b = bench()
    coordinator = b.coordinator(2, {0: Life(deaths=(2,))})
    b.executor.deaf = True  # its worker dies before it hears that it is to suspend
    b.stop_when(lambda progress: has_reported(progress, 1), coordinator)
    coordinator.run()
    assert b.executor.restarted == []
    assert b.outcomes == ["(RUNNING)", "(RUNNING)"]
    b.run(2)
    assert b.outcomes == ["trained"] * 2


def test_what_an_earlier_run_did_not_report_is_reported_from_the_checkpoint(bench: MakeBench) -> None:
    """A crash between a worker's epoch and the coordinator's report: the checkpoint's curve is the truth."""
    b = bench()
    crash_at_epoch(b.coordinator(1), 2)
    b.paths.trial(0).checkpoint.write_text("3")  # the worker trained on
    assert b.trials[0].intermediate_values == {1: 0.5}
    b.run(1)
    assert b.trials[0].intermediate_values == {1: 0.5, 2: 0.6, 3: 0.7}
    assert b.outcomes == ["trained"]


def crash(*_: Any) -> None:
    raise KeyboardInterrupt


def crash_at_epoch(coordinator: Any, epoch: int) -> None:
    real = coordinator.source.on_epoch

    coordinator.source.on_epoch = lambda running, metrics: crash() if metrics.epoch == epoch else real(running, metrics)
    with pytest.raises(KeyboardInterrupt):
        coordinator.run()


def test_an_epoch_that_was_judged_before_is_not_judged_again(bench: MakeBench) -> None:
    b = bench(pruner=PruneAfter())
    b.cut_off(1, epoch=1)
    b.pruner.asked.clear()
    b.run(1)
    assert b.pruner.asked == [(0, 2)], "the last one that was reported may not have been judged; the first one was"


def test_a_decision_that_was_recorded_and_not_told_is_carried_out(bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    b = bench(10, 10, 20, pruner=PruneAfter({0: 2}))

    with monkeypatch.context() as patched:
        patched.setattr(source.outcomes, "finish", crash)
        with pytest.raises(KeyboardInterrupt):
            b.run(2)
    assert b.trials[0].user_attrs["outcome"] == "pruned_early"
    assert b.outcomes[0] == "(RUNNING)"
    b.pruner.epochs = {}  # it would not be pruned again
    progress = b.run(2).progress
    assert b.outcomes == ["pruned_early", "duplicate", "trained"]
    assert b.submitted == [2], "neither it nor its duplicate is trained again"
    assert progress.trained == 2
    assert not b.paths.trial(0).checkpoint.exists()


# -------------------------------------------------------------------------------------------------- the order of things


def test_one_is_drawn_ahead_for_each_worker_and_no_more(bench: MakeBench) -> None:
    b = bench()
    most = []
    b.display.on_update = lambda progress: most.append(b.outcomes.count("(RUNNING)") - len(progress.running))
    b.run(6, workers=2)
    assert max(most) == 2


def accuracy_of(order: Any) -> Any:
    """A training whose accuracy follows from its network alone."""
    channels = order.network.stages[0].channels
    return Life(curve=(channels / 200, channels / 150, channels / 100))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_draws_the_same_with_one_worker(bench: MakeBench, seed: int) -> None:
    def draws(with_seed: int) -> list[tuple[dict[str, Any], str]]:
        b = bench(sampler=SAMPLERS["tpe"]())
        b.run(14, accuracy_of, seed=with_seed)
        return list(zip([trial.params for trial in b.trials], b.outcomes, strict=True))

    assert draws(seed) == draws(seed)
    assert draws(seed) != draws(seed + 1)


def test_the_progress_that_is_shown_adds_up(bench: MakeBench) -> None:
    b = bench(10, 90, 20, 10, 30)
    shown = []
    b.display.on_update = lambda p: shown.append((p.trained, p.trained_here, len(p.running), p.devices.get(0)))
    progress = b.run(3).progress
    assert progress.counts == {"trained": 3, "over_budget": 1, "duplicate": 1}
    assert [row.number for row in b.display.rows] == [0, 2, 4]
    assert all(one[0] <= other[0] for one, other in itertools.pairwise(shown))
    assert shown[-1] == (3, 3, 0, "fake, fp32")


def test_folders_that_workers_get_are_absolute(bench: MakeBench, tmp_path: Path) -> None:
    b = bench()
    b.paths = type(b.paths)(Path("relative"))
    b.run(1)
    assert b.executor.submitted[0].folder == tmp_path / "relative" / "trials" / "0000"


# ------------------------------------------------------------------------------------------------------- out of memory


def test_out_of_memory_the_same_trial_goes_on_in_smaller_parts(bench: MakeBench) -> None:
    b = bench()
    batch = b.space.candidate(b.space.first_values).train.batch_size
    b.run(1, {0: Life(memory=batch // 4)})
    assert [(int(order.key), order.micro_batches) for order in b.executor.submitted] == [(0, 1), (0, 2), (0, 4)]
    assert b.outcomes == ["trained"]
    assert b.trials[0].user_attrs["micro_batches"] == 4
    assert b.display.notes == [
        f"trial 0: the memory of the device ran out; it resumes with micro-batches of {batch // 2} images",
        f"trial 0: the memory of the device ran out; it resumes with micro-batches of {batch // 4} images",
    ]


def test_what_fits_in_no_micro_batch_has_failed(bench: MakeBench) -> None:
    b = bench()
    b.run(1, {0: Life(memory=0)})
    assert b.outcomes == ["failed", "trained"]
    smallest = b.executor.submitted[0].train.batch_size // b.executor.submitted[-2].micro_batches
    assert SMALLEST_MICRO_BATCH <= smallest < 2 * SMALLEST_MICRO_BATCH
    assert f"even for micro-batches of {smallest} images" in b.trials[0].user_attrs["reason"]
    assert "tried to allocate a lot" in b.paths.trial(0).error.read_text()


def test_the_next_run_keeps_the_micro_batches_that_were_found(bench: MakeBench) -> None:
    b = bench()
    life = {0: Life(memory=8)}
    coordinator = b.coordinator(1, life)
    b.stop_when(lambda progress: any(r.job.micro_batches == 4 for r in progress.running.values()), coordinator)
    coordinator.run()
    b.run(1, life)
    assert b.executor.submitted[0].micro_batches >= 4


def test_a_worker_that_the_system_ended_for_memory_is_no_mere_death(bench: MakeBench) -> None:
    b = bench()
    coordinator = b.coordinator(1)
    b.once(has_reported, lambda: b.executor.break_off(0, Died("SIGKILL", out_of_memory=True)))
    coordinator.run()
    assert [order.micro_batches for order in b.executor.submitted] == [1, 2]
    assert b.outcomes == ["trained"]
    assert any("the memory of the host ran out" in note for note in b.display.notes)


# ------------------------------------------------------------------------------------------- checkpoints and their curves


def test_only_the_best_trained_networks_keep_their_checkpoints(bench: MakeBench) -> None:
    b = bench(pruner=PruneAfter({5: 1}))
    accuracy = (0.5, 0.9, 0.6, 0.8, 0.7, 0.99, 0.4)
    b.run(7, lambda order: Life(curve=(0.1, 0.2, accuracy[int(order.key)])))
    kept = [number for number in range(7) if b.paths.trial(number).checkpoint.exists()]
    assert kept == [1, 3, 4]
    b.paths.trial(0).checkpoint.write_text("3")  # as a crash between the tell and the tidying leaves it
    half = b.paths.trial(2).folder / "checkpoint.pt.tmp"
    half.write_text("half")
    b.run(7)
    assert kept == [number for number in range(7) if b.paths.trial(number).checkpoint.exists()]
    assert not half.exists()


def test_a_training_that_starts_again_corrects_what_was_stored(bench: MakeBench) -> None:
    """Its checkpoint is lost, and another device computes other figures."""
    b = bench()
    b.cut_off(1, {0: Life(curve=(0.3, 0.4, 0.5))}, epoch=1)
    assert b.trials[0].intermediate_values == {1: 0.3, 2: 0.4}
    b.paths.trial(0).checkpoint.unlink()
    b.run(1, {0: Life(curve=(0.31, 0.41, 0.51))})
    assert b.trials[0].intermediate_values == {1: 0.31, 2: 0.41, 3: 0.51}
    assert b.trials[0].value == 0.51
    assert "trial 0 restarts: its checkpoint is gone" in b.display.notes


@pytest.mark.parametrize(("found", "words"), [("damaged", "is damaged"), ("mismatched", "is of another training or version")])
def test_a_checkpoint_that_cannot_serve_is_named(bench: MakeBench, found: Any, words: str) -> None:
    b = bench()
    coordinator = b.coordinator(1)
    real = b.executor._train

    def begin_anew(worker: int, order: Any) -> Any:
        training = real(worker, order)
        next(training)
        yield Began(0, found)
        yield from training

    b.executor._train = begin_anew
    coordinator.run()
    assert b.display.notes == [f"trial 0 restarts: its checkpoint {words}"]


# --------------------------------------------------------------------------------------------------- what takes too long


def test_a_worker_that_hangs_is_ended_and_its_trial_goes_on(bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "UNLEARNED_SECONDS", 0.2)
    monkeypatch.setattr(crew, "LEAST_SECONDS", 0.2)
    b = bench()
    coordinator = b.coordinator(2)
    b.executor.hangs = lambda: b.world.trained == [(0, 1), (0, 2)]
    coordinator.run()
    assert 3 <= b.executor.hung <= 10
    assert b.executor.killed == [0]
    assert b.outcomes == ["trained", "trained"]
    assert b.world.trained == [(n, epoch) for n in (0, 1) for epoch in (1, 2, 3)]
    assert any("worker 0 has not answered for 0 s; it seems to hang and is killed" in note for note in b.display.notes)


def test_a_worker_that_writes_no_checkpoint_in_time_is_ended(bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SUSPEND_SECONDS", 0.1)
    b = bench()
    coordinator = b.coordinator(2)
    b.executor.hangs = lambda: coordinator.stop.requested
    b.stop_when(has_reported, coordinator)
    coordinator.run()
    assert b.executor.killed == [0]
    assert b.executor.hung < 10
    assert b.outcomes[0] == "(RUNNING)"
    b.run(2)
    assert b.outcomes == ["trained", "trained"]


def test_when_the_search_cannot_go_on_the_other_trainings_are_suspended_first(bench: MakeBench) -> None:
    b = bench()

    failing = Life(curve=(), end="failed")
    coordinator = b.coordinator(10, lambda order: Life() if order.key == "0" else failing, workers=2)
    real, said = b.executor.send, []

    def send(worker: int, message: Any) -> None:
        said.append(type(message))
        real(worker, message)

    b.executor.send = send
    pace = b.executor._advance

    def slowly(worker: int, answer: Any) -> None:
        """The first trial stays in its first epoch until the search ends."""
        if b.executor._orders[worker].key == "0" and b.world.trained and Suspend not in said:
            b.executor._answers[worker] = answer
            b.executor._outbox.append((worker, Alive()))
        else:
            pace(worker, answer)

    b.executor._advance = slowly
    with pytest.raises(StudyError, match="5 trials in a row failed"):
        coordinator.run()
    assert said.count(Suspend) == 1
    assert b.paths.trial(0).checkpoint.exists()


@pytest.mark.parametrize(("life", "outcome"), [(Life(), "trained"), (Life(deaths=(0, 0, 0)), "failed")])
def test_how_far_an_epoch_is_is_shown_and_counts_as_no_epoch(bench: MakeBench, life: Life, outcome: str) -> None:
    b = bench()
    coordinator = b.coordinator(1, {0: life})
    within, advance, shown = EpochProgress(1, "training", 1, 4, 100.0), b.executor._advance, []

    def tell(worker: int, answer: Any) -> None:
        b.executor._outbox.append((worker, Alive(within)))
        advance(worker, answer)

    b.executor._advance = tell
    b.display.on_update = lambda progress: shown.extend((len(one.curve), one.progress) for one in progress.running.values())
    coordinator.run()
    assert b.outcomes[0] == outcome, "whose worker dies again and again is given up, whatever it says within an epoch"
    assert (0, within) in shown
    if outcome == "trained":
        assert {(1, None), (2, None), (2, within)} <= set(shown), "an epoch that has ended is at no step"
        assert b.trials[0].intermediate_values == {1: 0.5, 2: 0.6, 3: 0.7}


def test_a_verdict_that_was_acted_on_is_not_taken_again(bench: MakeBench) -> None:
    """The checkpoint holds an epoch more than the study: its worker was told to go on, whatever the pruner says now."""
    b = bench(pruner=PruneAfter())
    crash_at_epoch(b.coordinator(1), 2)
    assert b.trials[0].intermediate_values == {1: 0.5}
    b.pruner.epochs = {0: 1}
    b.run(1)
    assert b.outcomes == ["trained"]
    assert b.trials[0].intermediate_values == {1: 0.5, 2: 0.6, 3: 0.7}


# ------------------------------------------------------------------------------------------ faults that come at a bad time


def test_what_a_kill_left_of_the_last_trial_is_put_in_order_though_the_goal_is_reached(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench(10, 20, 20)

    coordinator = b.coordinator(2, {0: Life(curve=(0.5,), end="diverged")}, workers=2)
    monkeypatch.setattr(coordinator.source, "settle_twins", lambda ended: crash() if ended.number == 1 else None)
    with pytest.raises(KeyboardInterrupt):
        coordinator.run()
    b.paths.trial(0).checkpoint.write_text("1")
    b.run(2)
    assert b.submitted == []
    assert not b.executor.started
    assert "(RUNNING)" not in b.outcomes
    assert not b.paths.trial(0).checkpoint.exists()


def test_when_the_study_cannot_be_written_the_trainings_are_suspended_before_it_ends(bench: MakeBench) -> None:
    b = bench()
    coordinator = b.coordinator(4, workers=2)

    def away(*_: Any) -> None:
        raise StudyError("the database is away, and the search was stopped")

    b.once(has_reported, lambda: setattr(coordinator.source, "on_epoch", away))
    with pytest.raises(StudyError, match="the database is away"):
        coordinator.run()
    suspended = {int(order.key) for order in b.executor.submitted}
    assert len(suspended) == 2
    assert all(b.paths.trial(number).checkpoint.exists() for number in suspended)
    assert not b.executor._trainings, "each has ended by itself"
    b.run(4)
    assert b.outcomes == ["trained"] * 4
    assert len(b.world.trained) == len(set(b.world.trained)) == 12


def test_our_own_kill_at_a_stop_is_no_fault_of_the_trial(bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SUSPEND_SECONDS", 0.05)
    b = bench()
    coordinator = b.coordinator(1, {0: Life(deaths=(1, 1))})
    b.executor.hangs = lambda: coordinator.stop.requested
    b.stop_when(lambda progress: any(r.deaths == 2 for r in progress.running.values()), coordinator)
    coordinator.run()
    assert b.executor.killed == [0]
    assert b.outcomes == ["(RUNNING)"]


def test_a_stop_in_the_middle_of_a_draw_changes_no_draw(bench: MakeBench) -> None:
    """A trial that ends while the next one is drawn is told after that draw, in this run or in the next."""

    def run(stop: bool) -> Any:
        b = bench(sampler=SAMPLERS["tpe"]())
        b.paths = type(b.paths)(b.paths.folder / str(stop))
        b.run(10, accuracy_of)
        coordinator = b.coordinator(16, accuracy_of)
        step, stopped, calls = coordinator.source.work, [], itertools.count(1)

        def slow_step() -> None:
            """As long as a training takes."""
            if stop and coordinator.source._decided and not stopped:
                stopped.append(len(b.trials))
                coordinator.stop.request()
            elif next(calls) % 7 == 0:
                step()

        coordinator.source.work = slow_step
        b.executor.most_silences = 1000
        coordinator.run()
        assert bool(stopped) == stop
        if stop:
            b.sampler = SAMPLERS["tpe"]()
            b.run(16, accuracy_of)
        kept = sorted(file.parent.name for file in b.paths.trials.glob("*/checkpoint.pt"))
        return kept, [(t.params, t.user_attrs["outcome"], t.values) for t in b.trials]

    assert run(True) == run(False)


def test_a_worker_whose_device_fails_is_replaced_and_its_trial_goes_on(bench: MakeBench) -> None:
    b = bench()
    coordinator = b.coordinator(1)
    fault = Broken("AcceleratorError: an illegal memory access")
    b.once(has_reported, lambda: b.executor.break_off(0, fault, Died("exit code 3")))
    coordinator.run()
    assert b.outcomes == ["trained"]
    assert b.submitted == [0, 0]
    assert "the device of worker 0 fails in trial 0: AcceleratorError: an illegal memory access" in b.display.notes


def test_a_folder_that_is_no_trials_is_left_alone(bench: MakeBench) -> None:
    b = bench()
    copy = b.paths.trials / "0000 copy"
    copy.mkdir(parents=True)
    (copy / "checkpoint.pt").write_text("1")
    b.run(1)
    assert (copy / "checkpoint.pt").exists()

"""Learning rates against closed forms, and against torch's own schedulers over whole runs."""

import itertools
import math
import warnings
from typing import Any, get_args

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedules

from nas.config import ScheduleName, TrainConfig
from nas.train.optimiser import ONECYCLE_END, ONECYCLE_START, SCHEDULES, learning_rate

EPOCHS, STEPS = 20, 25
PEAK = 0.4


def config(schedule: str, **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({"schedule": schedule, "epochs": EPOCHS, "lr": PEAK, **changes})


def whole_run(train: TrainConfig, steps: int = STEPS) -> list[float]:
    return [learning_rate(step, steps, train) for step in range(steps * train.epochs)]


def torchs_run(count: int, make: Any) -> list[float]:
    """The rate of each of `count` steps under a scheduler of torch's that is stepped after each."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR steps its own parts by their deprecated argument
        scheduler = make(optimiser)
        rates = []
        for _ in range(count):
            rates.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            scheduler.step()
    return rates


def at_half_steps(rates: list[float]) -> list[float]:
    """Means of neighbours: what a smooth schedule is in the middle of its steps."""
    return [(a + b) / 2 for a, b in itertools.pairwise(rates)]


def test_the_registry_holds_exactly_what_the_configuration_names() -> None:
    assert tuple(SCHEDULES) == get_args(ScheduleName)


@pytest.mark.parametrize("rate_per_epoch", [False, True])
@pytest.mark.parametrize("warmup", [0.0, 0.3])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_stays_within_zero_and_the_peak(schedule: str, warmup: float, rate_per_epoch: bool) -> None:
    rates = whole_run(config(schedule, warmup=warmup, rate_per_epoch=rate_per_epoch))
    assert all(0 <= rate <= PEAK * (1 + 1e-12) for rate in rates)
    assert max(rates) > 0.95 * PEAK, "the peak is reached"
    assert rate_per_epoch or min(rates) > 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_means_the_same_at_any_number_of_steps(schedule: str) -> None:
    train = config(schedule, warmup=0.25)
    coarse, fine = whole_run(train, steps=8), whole_run(train, steps=24)
    assert coarse == pytest.approx(fine[1::3])  # the middle of three short steps is the middle of a long one


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_of_an_epoch_is_that_of_its_begin(schedule: str) -> None:
    train = config(schedule, warmup=0.25, rate_per_epoch=True)
    rates = whole_run(train)
    for epoch in range(EPOCHS):
        ours = rates[epoch * STEPS : (epoch + 1) * STEPS]
        begin = epoch / EPOCHS
        if schedule == "warmup_cosine" and begin < train.warmup:
            begin = min((epoch + 1) / EPOCHS, train.warmup)  # the warm-up's end of the epoch: at its begin the rate is 0
        assert set(ours) == {PEAK * SCHEDULES[schedule](begin, train)}


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
def test_schedules_are_their_closed_forms(progress: float) -> None:
    train = config("cosine", warmup=0.25, milestones=(0.5, 0.75), gamma=0.2)
    falling = (progress - 0.25) / 0.75
    cosine = (1 + math.cos(math.pi * progress)) / 2
    warm = progress / 0.25 if progress < 0.25 else (1 + math.cos(math.pi * falling)) / 2
    if progress < 0.25:
        cycle = ONECYCLE_START + (1 - ONECYCLE_START) * (1 - math.cos(math.pi * progress / 0.25)) / 2
    else:
        cycle = ONECYCLE_END + (1 - ONECYCLE_END) * (1 + math.cos(math.pi * falling)) / 2
    stairs = 1.0 if progress < 0.5 else 0.2 if progress < 0.75 else 0.04
    wanted = {
        "cosine": cosine,
        "linear": 1 - progress,
        "warmup_cosine": warm,
        "onecycle": cycle,
        "multistep": stairs,
        "constant": 1,
    }
    assert {name: function(progress, train) for name, function in SCHEDULES.items()} == pytest.approx(wanted, abs=1e-12)


def test_cosine_once_an_epoch_is_torchs_exactly() -> None:
    theirs = torchs_run(EPOCHS, lambda o: torch_schedules.CosineAnnealingLR(o, T_max=EPOCHS))
    assert whole_run(config("cosine", rate_per_epoch=True))[::STEPS] == pytest.approx(theirs)


def test_onecycle_is_torchs_within_a_step() -> None:
    total, warmup = EPOCHS * STEPS, 0.3
    theirs = torchs_run(
        total, lambda o: torch_schedules.OneCycleLR(o, max_lr=PEAK, total_steps=total, pct_start=warmup, cycle_momentum=False)
    )
    ours = whole_run(config("onecycle", warmup=warmup))
    steepest = PEAK * math.pi / 2 / (warmup * total)  # the most that the rate changes in one step
    assert ours == pytest.approx(theirs, abs=1.5 * steepest)
    assert theirs[0] == pytest.approx(PEAK * ONECYCLE_START)
    assert theirs[-1] == pytest.approx(PEAK * ONECYCLE_END, rel=1e-6)


@pytest.mark.parametrize("epochs", [7, 60, 164, 200])
def test_multistep_once_an_epoch_is_torchs_whatever_the_milestones_round_to(epochs: int) -> None:
    at = [epochs // 3, epochs // 2, 4 * epochs // 5]
    theirs = torchs_run(epochs, lambda o: torch_schedules.MultiStepLR(o, milestones=at, gamma=0.1))
    train = config("multistep", epochs=epochs, milestones=tuple(round(m / epochs, 10) for m in at), rate_per_epoch=True)
    assert whole_run(train, steps=3)[::3] == pytest.approx(theirs)


def test_a_milestone_at_the_end_is_never_reached() -> None:
    assert whole_run(config("multistep", milestones=(0.5, 1.0, 1.5)))[-1] == pytest.approx(PEAK * 0.1)


def test_warmup_cosine_is_torchs_linear_then_cosine_half_a_step_later() -> None:
    total, warmup = EPOCHS * STEPS, 0.2
    rising = round(warmup * total)
    theirs = torchs_run(
        total + 1,
        lambda o: torch_schedules.SequentialLR(
            o,
            [
                torch_schedules.LinearLR(o, start_factor=1e-9, total_iters=rising),
                torch_schedules.CosineAnnealingLR(o, T_max=total - rising),
            ],
            milestones=[rising],
        ),
    )
    assert whole_run(config("warmup_cosine", warmup=warmup)) == pytest.approx(at_half_steps(theirs), abs=PEAK * 2e-5)


def test_a_warm_up_in_whole_epochs_does_not_train_its_first_epoch_at_a_rate_of_zero() -> None:
    train = config("warmup_cosine", epochs=10, warmup=0.3, rate_per_epoch=True)
    rates = whole_run(train)[::STEPS]
    assert rates[:4] == pytest.approx([train.lr / 3, train.lr * 2 / 3, train.lr, train.lr])

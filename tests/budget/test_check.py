"""What a budget lets pass, in which order it finds that out, and what it measures only once."""

import json
import math
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import pytest

import nas.budget.check
from nas.budget import Budget, Cost, count_flash, count_macs, count_params, count_ram, peak_memory
from nas.budget.check import TOO_LARGE_TO_RUN
from nas.budget.latency import latency_key
from nas.config import BudgetConfig, ImageShape, LatencyConfig
from nas.errors import BudgetError, ConfigError
from nas.space.space_file import CIFAR10
from tests.reported import arch_of

SMALL, WIDER, HUGE = arch_of(8, 16), arch_of(8, 32), arch_of(*[4096] * 4, blocks=64)
LATENCY = LatencyConfig(max_ms=5, runtime="torch")
PARAMS, MEMORY, MACS = count_params(SMALL, CIFAR10), peak_memory(SMALL, CIFAR10), count_macs(SMALL, CIFAR10)
FLASH, RAM = count_flash(SMALL, CIFAR10), count_ram(SMALL, CIFAR10)


def limits(**changes: Any) -> BudgetConfig:
    """All, kept by SMALL where it takes 4 ms."""
    return BudgetConfig.model_validate(
        {"params": PARAMS, "flash": FLASH, "ram": RAM, "memory": MEMORY, "macs": MACS, "latency": LATENCY.model_dump()} | changes
    )


ASKED = ["count_params", "count_flash", "count_ram", "peak_memory", "count_macs", "measure_latency"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is found out, in its order. Each network takes 4 ms."""
    names: list[str] = []

    def spy(name: str, find_out: Callable[..., Any]) -> None:
        monkeypatch.setattr(nas.budget.check, name, lambda *a: names.append(name) or find_out(*a))

    spy("count_params", count_params)
    for name, count in nas.budget.COMPUTED.items():
        monkeypatch.setitem(nas.budget.COMPUTED, name, lambda *a, count=count: names.append(count.__name__) or count(*a))
    spy("count_macs", count_macs)
    spy("measure_latency", lambda *a: 4.0)
    return names


def test_all_limits_together_are_found_out_cheapest_first(asked: list[str]) -> None:
    cost = Budget(limits(), CIFAR10).check(SMALL)
    excess = {**dict.fromkeys(("params", "flash", "ram", "memory", "macs"), 0.0), "latency": pytest.approx(-0.2)}
    assert cost == Cost(PARAMS, MACS, excess, MEMORY, FLASH, RAM, latency_ms=4.0)
    assert cost.fits
    assert asked == ASKED


@pytest.mark.parametrize(
    ("broken", "found_out", "sentence"),
    [
        ({"params": PARAMS - 1}, 1, f"{PARAMS:,} parameters: over the budget of {PARAMS - 1:,}"),
        ({"flash": FLASH - 1}, 2, f"{FLASH:,} bytes of flash: over the budget of {FLASH - 1:,}"),
        ({"ram": RAM - 1}, 3, f"{RAM:,} bytes of RAM: over the budget of {RAM - 1:,}"),
        ({"memory": MEMORY - 1}, 4, f"{MEMORY:,} bytes of activations: over the budget of {MEMORY - 1:,}"),
        ({"macs": MACS - 1}, 5, f"{MACS:,} MACs: over the budget of {MACS - 1:,}"),
        (
            {"latency": {"max_ms": 3.5, "runtime": "torch"}},
            6,
            "4.000 ms by torch on cpu, 1 thread, batch 1: over the budget of 3.5",
        ),
    ],
)
def test_a_dearer_limit_is_not_looked_at_where_a_cheaper_one_is_broken(
    broken: dict[str, Any], found_out: int, sentence: str, asked: list[str]
) -> None:
    budget = Budget(limits(**broken), CIFAR10)
    cost = budget.check(SMALL)
    assert not cost.fits
    assert asked == [name for name in ASKED[:found_out] if name != "count_macs" or "macs" not in broken], (
        "fvcore only judges what may fit"
    )
    assert list(cost.excess) == ["params", "flash", "ram", "memory", "macs", "latency"][:found_out]
    assert [name for name, value in cost.excess.items() if value > 0] == list(broken)
    assert cost.sentence(budget.limits) == sentence


def test_a_limit_that_there_is_not_is_not_found_out(asked: list[str]) -> None:
    assert Budget(BudgetConfig(params=PARAMS), CIFAR10).check(SMALL) == Cost(PARAMS, MACS, {"params": 0.0})
    assert asked == ["count_params"]


@pytest.mark.parametrize(("name", "has"), [("flash", FLASH), ("ram", RAM), ("memory", MEMORY), ("macs", MACS)])
def test_each_other_count_alone_is_a_budget(name: str, has: int) -> None:
    for limit, fits in ((has, True), (has - 1, False), (2 * has, True)):
        cost = Budget(BudgetConfig.model_validate({name: limit}), CIFAR10).check(SMALL)
        assert (cost.fits, getattr(cost, name), cost.params) == (fits, has, PARAMS)
        assert cost.excess == {name: pytest.approx(has / limit - 1)}


@pytest.mark.parametrize("limit", [BudgetConfig(macs=50_000_000), limits()])
def test_network_far_over_its_budget_is_never_allocated(limit: BudgetConfig, asked: list[str]) -> None:
    cost = Budget(limit, CIFAR10).check(HUGE)  # 300 GB of weights, if it were
    assert (cost.fits, cost.memory) == (False, None)
    assert cost.params > 70_000_000_000
    assert cost.macs is not None
    assert cost.macs > 10**13
    assert asked == ["count_params"]


def test_network_too_large_to_run_is_over_its_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.budget.check, "measure_latency", lambda *a: math.inf)
    budget = Budget(BudgetConfig(latency=LATENCY), CIFAR10)
    cost = budget.check(SMALL)
    assert cost == Cost(PARAMS, MACS, {"latency": TOO_LARGE_TO_RUN})
    assert cost.sentence(budget.limits) == "too large to run by torch on cpu, 1 thread, batch 1: over the budget of 5"


def test_network_that_shrinks_its_images_to_nothing_is_refused() -> None:
    arch = arch_of(*[8] * 5)
    budget = Budget(BudgetConfig(params=5_000_000, latency=LATENCY), ImageShape(channels=1, size=8, classes=10))
    assert not budget.needs_idle_machine(arch)
    with pytest.raises(ConfigError) as refused:
        budget.check(arch)
    assert refused.value.message == (
        "stage 5 of 5 would halve a feature map of 1×1: images of 8×8 with a stem of stride 1 allow 4 stages"
    )
    assert refused.value.hint == "use fewer stages, a stem of stride 1, or larger images (--image-size)"


def test_quiet_is_wanted_only_where_the_next_check_would_measure(asked: list[str]) -> None:
    budget = Budget(limits(), CIFAR10)
    assert budget.needs_idle_machine(SMALL)
    assert "measure_latency" not in asked
    budget.check(SMALL)
    assert asked == ASKED, "nothing is counted again"
    assert not budget.needs_idle_machine(SMALL)
    assert not budget.needs_idle_machine(WIDER)  # over its parameters
    assert not Budget(limits(latency=None), CIFAR10).needs_idle_machine(SMALL)


def test_a_copy_with_other_limits_counts_for_itself(asked: list[str]) -> None:
    """As a search of the front has it: a limit for each trial."""
    budget = Budget(limits(), CIFAR10)
    assert budget.check(SMALL).fits
    tighter = copy(budget)
    tighter.limits = budget.limits.model_copy(update={"params": PARAMS - 1})
    assert not tighter.needs_idle_machine(SMALL)
    assert not tighter.check(SMALL).fits
    assert budget.check(SMALL).fits
    assert asked.count("measure_latency") == 1


def test_a_network_is_measured_once(asked: list[str]) -> None:
    budget = Budget(limits(params=10**6, flash="10MB", ram="10MB", memory="10MB", macs="1G"), CIFAR10)
    for _ in range(3):
        assert budget.check(SMALL).latency_ms == 4.0
    budget.check(WIDER)
    assert asked.count("measure_latency") == 2


@pytest.mark.parametrize("changes", [{"dropout": 0.2}, {"zero_init": True}, {"expansion": 2}, {"stochastic_depth": 0.1}])
def test_networks_that_predict_alike_are_measured_once(changes: dict[str, Any], asked: list[str]) -> None:
    budget = Budget(BudgetConfig(latency=LATENCY), CIFAR10)
    budget.check(SMALL)
    assert not budget.needs_idle_machine(SMALL.model_copy(update=changes))
    assert budget.check(SMALL.model_copy(update=changes)).latency_ms == 4.0
    assert asked.count("measure_latency") == 1


def test_what_was_measured_outlives_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "latencies.json"
    answers = iter([4.999, 5.001])
    monkeypatch.setattr(nas.budget.check, "measure_latency", lambda *a: next(answers))
    first = Budget(BudgetConfig(latency=LATENCY), CIFAR10, file).check(SMALL)
    again = Budget(BudgetConfig(latency=LATENCY), CIFAR10, file)
    assert not again.needs_idle_machine(SMALL)
    assert again.check(SMALL) == first  # measured anew, it would be another
    (entry,) = json.loads(file.read_text()).values()
    assert entry == {"ms": 4.999, "architecture": SMALL.one_line(), "latency": "torch on cpu, 1 thread, batch 1"}


def test_what_had_no_memory_is_timed_again_by_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "latencies.json"
    answers = iter([math.inf, 4.999])
    monkeypatch.setattr(nas.budget.check, "measure_latency", lambda *a: next(answers))
    budget = Budget(BudgetConfig(latency=LATENCY), CIFAR10, file)
    assert not budget.check(SMALL).fits
    assert not budget.needs_idle_machine(SMALL)
    assert json.loads(file.read_text()) == {}
    of_an_older_build = {latency_key(SMALL, CIFAR10, LATENCY): {"ms": None, "architecture": "", "latency": ""}}
    file.write_text(json.dumps(of_an_older_build))
    again = Budget(BudgetConfig(latency=LATENCY), CIFAR10, file)
    assert again.needs_idle_machine(SMALL)
    assert again.check(SMALL).fits
    assert [entry["ms"] for entry in json.loads(file.read_text()).values()] == [4.999]


def test_a_limit_may_change_and_how_it_is_timed_may_not(tmp_path: Path, asked: list[str]) -> None:
    file = tmp_path / "latencies.json"
    Budget(BudgetConfig(latency=LATENCY), CIFAR10, file).check(SMALL)
    stricter = Budget(BudgetConfig(latency=LATENCY.model_copy(update={"max_ms": 3.0})), CIFAR10, file)
    assert not stricter.check(SMALL).fits
    assert asked.count("measure_latency") == 1
    for change in ({"threads": 2}, {"batch": 8}, {"runtime": "onnxruntime"}, {"device": "cuda"}):
        assert Budget(BudgetConfig(latency=LATENCY.model_copy(update=change)), CIFAR10, file).needs_idle_machine(SMALL)
    assert Budget(BudgetConfig(latency=LATENCY), ImageShape(channels=3, size=64, classes=10), file).needs_idle_machine(SMALL)


def test_before_the_study_has_a_folder_nothing_is_written(tmp_path: Path, asked: list[str]) -> None:
    file = tmp_path / "study" / "latencies.json"
    budget = Budget(BudgetConfig(latency=LATENCY), CIFAR10, file)
    budget.check(SMALL)
    assert not file.parent.exists()
    file.parent.mkdir()
    budget.check(WIDER)
    assert len(json.loads(file.read_text())) == 2


def test_it_is_written_by_whom_the_search_says(tmp_path: Path, asked: list[str]) -> None:
    written: list[tuple[Path, bytes]] = []
    file = tmp_path / "latencies.json"
    Budget(BudgetConfig(latency=LATENCY), CIFAR10, file, write=lambda *a: written.append(a)).check(SMALL)
    assert [path for path, _ in written] == [file]
    assert not file.exists()


@pytest.mark.parametrize("text", ["", "{", '{"a": 3}', '{"a": {"ms": "soon", "architecture": "", "latency": ""}}'])
def test_a_file_that_cannot_be_read_is_refused_by_name(text: str, tmp_path: Path) -> None:
    file = tmp_path / "latencies.json"
    file.write_text(text)
    with pytest.raises(BudgetError) as refused:
        Budget(BudgetConfig(latency=LATENCY), CIFAR10, file)
    assert refused.value.message.startswith(f"{file}, the file of measured latencies, cannot be read: ")
    assert refused.value.hint == "delete it; networks that are drawn again will be timed again"
    Budget(BudgetConfig(params=1), CIFAR10, file)  # who limits no latency does not look


def test_a_real_network_is_timed() -> None:
    loose, strict = (
        Budget(BudgetConfig(latency=LATENCY.model_copy(update={"max_ms": ms})), CIFAR10).check(SMALL) for ms in (10_000.0, 1e-6)
    )
    assert loose.fits
    assert not strict.fits
    assert loose.latency_ms is not None
    assert loose.excess["latency"] == loose.latency_ms / 10_000 - 1

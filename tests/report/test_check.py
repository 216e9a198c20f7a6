"""Whether a network fits, by how much, what is said of its counts, and what the rest of a budget would buy.

Networks of files are measured in this process here.
"""

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from nas.budget import Budget, count_macs, count_params, peak_memory
from nas.config import ArchConfig, BudgetConfig, ImageShape, LatencyConfig, StageConfig
from nas.errors import ConfigError
from nas.foreign import ForeignName
from nas.foreign.measure import ForeignFacts, measure
from nas.paths import StudyPaths
from nas.report.check import STEP, Checked, Held, affordable, check, millions, notes_on
from nas.report.network import measured
from nas.runs.select import find_subject
from nas.space.space_file import CIFAR10
from nas.specs import CheckSpec
from nas.study.settings import read_settings
from tests.conftest import Done
from tests.foreign.networks import Net, Odd
from tests.reported import REPORTED


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Checked]:
    """Makes every name of torchvision that network, and checks it, by default for images of 8×8."""

    def checked(model: nn.Module, **options: Any) -> Checked:
        def inspect(name: ForeignName, shape: ImageShape, timeout: float, printed: Callable[[str], None]) -> ForeignFacts:
            assert timeout == CheckSpec(name.attribute, **options).timeout
            return measure(model, f"{name.attribute}()", shape)

        monkeypatch.setattr("nas.report.check.inspect_network", inspect)
        return check(CheckSpec("torchvision:any", **{} if "study" in options else {"size": 8}, **options))

    return checked


def test_large_counts_have_four_digits() -> None:
    values = (999_999, 1_000_000, 4_697_162, 11_181_642, 801_000_000, 17_582_740_224, 1_234_000_000_000)
    assert [millions(value) for value in values] == [
        *("", " (1.000 M)", " (4.697 M)", " (11.18 M)", " (801.0 M)", " (17.58 G)", " (1234 G)")
    ]


def test_limit_is_held_against_what_there_is() -> None:
    over = Held(5_000_000, 11_181_642)
    assert (over.kept, over.left) == (False, -6_181_642)
    assert over.sentence("params") == "11,181,642 parameters (11.18 M), 6,181,642 (124%) over the budget of 5,000,000"
    assert Held(5_000_000, 5_000_000).kept
    assert Held(60_000, 42_000).sentence("params") == "42,000 parameters, 18,000 (30%) below the budget of 60,000"
    assert Held(5.0, 4.0).sentence("latency") == "4.000 ms, 1.000 ms (20%) below the budget of 5.0"
    unknown = Held(5_000_000, None)
    assert not unknown.kept
    assert unknown.sentence("macs") == "MACs unknown, where the budget is 5,000,000"


def test_preset_is_checked_against_five_million() -> None:
    found = check(CheckSpec("preset:resnet-443"))
    assert (found.study, found.network, found.fits) == (None, "preset:resnet-443", True)
    assert found.limits == {"params": Held(5_000_000, 4_697_162)}
    assert found.images == CIFAR10
    assert found.affordable is not None
    assert found.repeats == []
    assert not any("frozen" in note for note in found.notes)
    assert any(note.endswith("kept with the network, but no parameters.") for note in found.notes)
    assert not check(CheckSpec("preset:resnet-443", max_params=1_000_000)).fits


def test_images_and_budget_of_the_command_line_come_first(study: StudyPaths) -> None:
    subject = find_subject(study, "best")
    here = check(CheckSpec("best", study="tiny"))
    assert (here.study, here.network, here.fits) == ("tiny", subject.title, True)
    assert (here.images, here.limits["params"].limit) == (read_settings(study).shape, 3000)
    other = check(CheckSpec("best", study="tiny", size=16, classes=5, channels=3, max_params=10, max_macs=10**9))
    shape = ImageShape(channels=3, size=16, classes=5)
    assert other.images == shape
    assert other.limits == {
        "params": Held(10, count_params(subject.candidate.arch, shape)),
        "macs": Held(10**9, count_macs(subject.candidate.arch, shape)),
    }
    assert not other.fits


BLOCK = """\
import torch
from nas.models.blocks import ResidualBlock, make_shortcut


class Chained(ResidualBlock):
    def __init__(self, plan):
        super().__init__(plan)
        self.shortcut = make_shortcut(plan)

    def forward(self, x):
        x = self.shortcut(x)
        return x + torch.linalg.multi_dot([x[0, 0], x[0, 0], x[0, 0]])

    def zero_residual(self):
        pass
"""


def test_multiplications_of_a_users_block_without_a_rule_are_named(
    study: StudyPaths, nas: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"file": "mine.py", "text": BLOCK}
    arch = ArchConfig.model_validate({"stages": [{"blocks": 1, "channels": 8}], "block": "Chained", "block_source": source})
    shape = ImageShape(channels=3, size=8, classes=10)
    assert notes_on(measured(arch, shape), shape)[-1] == (
        "The MACs of linalg_multi_dot (1 times) are not counted, because there is no rule for them."
    )
    best = find_subject(study, "best")
    mine = replace(best, candidate=best.candidate.model_copy(update={"arch": arch}))
    for place in ("compare", "show"):
        monkeypatch.setattr(f"nas.report.{place}.find_subject", lambda *_: mine)
    assert "The MACs of linalg_multi_dot are not counted" in nas("show", "best", "--study", "tiny").out
    found = json.loads(nas("compare", "best", "preset:resnet-443", "--study", "tiny", "--json").out)
    assert [one.get("multiply-adds not counted") for one in found.values()] == ["linalg_multi_dot", ""]


def test_widths_that_could_grow_for_nothing_are_named(study: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a limit of latency by onnxruntime on x86-64."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("nas.report.check.latency_of", lambda *_: 4.0)
    settings, found = read_settings(study), {}
    for runtime in ("torch", "onnxruntime"):
        budget = settings.budget.model_copy(update={"latency": LatencyConfig(max_ms=5, runtime=runtime)})
        study.settings.write_text(settings.model_copy(update={"budget": budget}).to_json())
        found[runtime] = check(CheckSpec("best", study="tiny"))
    widths = dict.fromkeys(stage.channels for stage in find_subject(study, "best").candidate.arch.stages)
    assert max(widths) < 16
    free = ", ".join(f"{width} → 16" for width in widths)
    assert found["onnxruntime"].notes == [
        *found["torch"].notes,
        f"On this CPU onnxruntime computes 16 channels at once, so the larger width takes no longer than the smaller: {free}.",
    ]


def test_foreign_network_is_held_against_a_budget(foreign: Callable) -> None:
    found, block = foreign(Net(num_classes=10), max_params=1500, timeout=7), 8 * 8 * 9 + 16
    assert found.images == ImageShape(channels=3, size=8, classes=10)
    assert found.facts.params == 3 * 8 * 9 + 8 + 2 * block + 90
    assert found.fits
    assert (found.affordable, found.unchecked) == (None, {})
    assert found.width_factor == pytest.approx(math.sqrt(1500 / found.facts.params))
    (repeat,) = found.repeats
    assert found.copies(repeat) == (1500 - found.facts.params) // block == 0
    assert foreign(Net(num_classes=10), max_params=3000).copies(repeat) == (3000 - found.facts.params) // block


def test_foreign_network_that_is_over_budget_is_told_what_to_leave_out(foreign: Callable) -> None:
    limits = [{"max_params": most} for most in (1000, 320, 100)]
    limits += [{"max_params": 10**6, "max_macs": 60_000}]  # parameters would allow more blocks, multiply-adds do not
    found = [foreign(Net(num_classes=10), **one) for one in limits]
    assert [(one.fits, one.copies(one.repeats[0])) for one in found] == [(False, -1), (False, -2), (False, None), (False, -1)]


def test_notes_name_unusual_parameters_of_a_foreign_network(foreign: Callable) -> None:
    notes = "\n".join(foreign(Odd(), classes=7).notes)
    for note in (
        "For one image it returns (10,), but must return (7,) for 7 classes",
        "Parameters that have several names count once: second.weight = third.weight.",
        "30 parameters are not used for predictions, but count: never (30).",
        "Lazy parameters took their shape from an image of this size: lazy.weight, lazy.bias.",
        "8 of the parameters are frozen, but count.",
        "17 values are buffers",
    ):
        assert note in notes


def test_multiply_adds_that_cannot_be_counted_are_not_said_to_fit(foreign: Callable) -> None:
    class Unknown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 10)
            self.hidden = [nn.Linear(10, 10)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.hidden[0](self.head(x.mean((2, 3))))

    found = foreign(Unknown(), max_macs=10**6)
    assert found.limits == {"macs": Held(10**6, None)}
    assert not found.fits
    assert any(note.startswith("It uses 110 parameters that are not registered") for note in found.notes)
    assert any(note.startswith("Its MACs cannot be counted, since torch.jit cannot trace it: ") for note in found.notes)
    assert foreign(Unknown()).fits


def test_multiply_adds_that_are_not_all_counted_are_not_said_to_fit(foreign: Callable, nas: Callable[..., Done]) -> None:
    class Recurs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.recurrent(x.flatten(2).mT)[0][:, -1])

    assert foreign(Recurs()).fits
    done = nas("check", "torchvision:any", "--size", "8", "--max-macs", "1M")
    assert done.code == 1
    assert "Whether it fits is not known, because not all MACs are counted." in done.out
    assert "The MACs of lstm (1 times) are not counted" in done.out


def test_latency_of_a_study_is_not_looked_at_for_a_foreign_network(foreign: Callable, study: StudyPaths) -> None:
    settings = read_settings(study)
    limits = BudgetConfig.model_validate({"params": 3000, "latency": {"max_ms": 1000, "runtime": "torch"}})
    study.settings.write_text(settings.model_copy(update={"budget": limits}).to_json())
    found = foreign(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), study="tiny")
    assert (list(found.unchecked), found.fits, found.limits.keys()) == (["latency"], True, {"params"})
    ours = check(CheckSpec("best", study="tiny"))
    assert (list(ours.unchecked), ours.limits.keys()) == ([], {"params", "latency"})
    assert ours.limits["latency"].kept


@pytest.mark.parametrize(
    ("which", "hint"),
    [
        ("resnet18", "nas check torchvision:resnet18"),
        ("resnet-443", "nas check preset:resnet-443"),
        ("net.txt", "nas check torchvision:resnet18"),
    ],
)
def test_unknown_networks_are_refused_with_the_choices(which: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a network\. Choices: best, a trial number, preset:NAME") as refused:
        check(CheckSpec(which))
    assert refused.value.hint == hint


SMALL = ImageShape(channels=1, size=8, classes=10)


def with_stage(arch: ArchConfig, index: int, **changed: int) -> ArchConfig:
    stages = [dict(stage) for stage in arch.stages]
    stages[index] |= changed
    return ArchConfig.model_validate({**arch.model_dump(), "stages": stages})


def any_network(lots: random.Random) -> ArchConfig:
    step = lots.choice([1, STEP])
    stages = [StageConfig(blocks=lots.randint(1, 4), channels=step * lots.randint(1, 6)) for _ in range(lots.randint(1, 3))]
    choices = {"block": ["basic", "preact", "bottleneck"], "downsample": ["conv", "maxpool", "avgpool"], "se_reduction": [0, 4]}
    return ArchConfig.model_validate({"stages": stages, **{name: lots.choice(of) for name, of in choices.items()}})


@pytest.mark.parametrize("limits", [{"params": 20_000}, {"macs": 800_000}, {"params": 30_000, "macs": 500_000, "memory": 8_000}])
def test_what_a_stage_could_have_fits_and_one_more_does_not(limits: dict[str, int]) -> None:
    lots = random.Random(sum(limits.values()))
    budget = Budget(BudgetConfig.model_validate(limits), SMALL)
    found_any = 0
    for _ in range(4):
        arch = any_network(lots)
        step = STEP if all(stage.channels % STEP == 0 for stage in arch.stages) else 1
        found = affordable(arch, SMALL, budget.limits)
        for i, room in enumerate(found.stages):
            deeper = with_stage(arch, i, blocks=room.blocks + 1)
            assert room.block_params == count_params(deeper, SMALL) - count_params(arch, SMALL)
            if room.most_blocks is None:
                assert not budget.check(with_stage(arch, i, blocks=1)).fits
            else:
                found_any += 1
                assert budget.check(with_stage(arch, i, blocks=room.most_blocks)).fits
                if room.most_blocks < 64:
                    assert not budget.check(with_stage(arch, i, blocks=room.most_blocks + 1)).fits
            if room.most_channels is not None:
                assert budget.check(with_stage(arch, i, channels=room.most_channels)).fits
                for wider in range(room.most_channels + step, room.most_channels + 4 * step, step):
                    assert not budget.check(with_stage(arch, i, channels=wider)).fits
        if found.together is not None:
            widths = zip(arch.stages, found.together.channels, strict=True)
            stages = tuple(stage.model_copy(update={"channels": channels}) for stage, channels in widths)
            scaled = arch.model_copy(update={"stages": stages})
            assert budget.check(scaled).fits
            assert (found.together.params, found.together.macs) == (count_params(scaled, SMALL), count_macs(scaled, SMALL))
    assert found_any


def test_network_that_fits_is_never_told_to_be_narrower() -> None:
    """A limit of multiply-adds decides, and the steps of the search for the widest would end just below."""
    arch, params = REPORTED["resnet-443"]
    macs = count_macs(arch, CIFAR10)
    for limit in (None, 5_000_000):
        found = affordable(arch, CIFAR10, BudgetConfig(params=limit, macs=macs))
        assert found.together.params >= params
        assert found.together.macs <= macs


def test_no_network_fits_an_empty_budget() -> None:
    arch = ArchConfig(stages=(StageConfig(blocks=1, channels=8), StageConfig(blocks=1, channels=8)))
    found = affordable(arch, SMALL, BudgetConfig(params=10))
    assert found.together is None
    assert [(room.most_blocks, room.most_channels) for room in found.stages] == [(None, None)] * 2


def test_memory_alone_bounds_widths_but_hardly_depths() -> None:
    arch = ArchConfig(stages=(StageConfig(blocks=1, channels=8),))
    limit = 2 * peak_memory(arch, SMALL)
    (room,) = affordable(arch, SMALL, BudgetConfig(memory=limit)).stages
    assert room.most_blocks == 64
    assert room.most_channels is not None
    assert peak_memory(with_stage(arch, 0, channels=room.most_channels), SMALL) <= limit
    assert peak_memory(with_stage(arch, 0, channels=room.most_channels + STEP), SMALL) > limit

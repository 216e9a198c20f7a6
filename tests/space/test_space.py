from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, IntDistribution

from nas.budget.closed_form import closed_form_params
from nas.config import BudgetConfig, Candidate, ImageShape, LatencyConfig
from nas.paths import shipped_folder
from nas.space.space import Slot, Space, UniformDraw
from tests.spaces import WHOLE, read, with_arch, with_train


class Recorder:
    """Stands where a trial would; answers with one end of every range and remembers what it was asked."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.asked: dict[str, tuple[Any, ...]] = {}

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self.asked[name] = (low, high, step, log)
        return (low, high)[self.end]

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        self.asked[name] = (low, high, step, log)
        return (low, high)[self.end]

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.asked[name] = tuple(choices)
        return choices[-self.end]


@pytest.mark.parametrize("text", [WHOLE, *(p.read_text() for p in sorted(shipped_folder().glob("*.yaml")))])
def test_every_slot_is_suggested_at_the_same_range_whatever_is_drawn(text: str) -> None:
    space = read(text)
    first, last = Recorder(0), Recorder(1)
    assert space.draw(first) != space.draw(last)
    assert first.asked == last.asked
    assert set(first.asked) == {slot.name for slot in space.slots if slot.drawn}


def test_every_stage_is_drawn_and_only_those_there_are_get_built() -> None:
    few, many = Recorder(0), Recorder(1)
    assert len(read().draw(few).arch.stages) == 2
    assert few.asked["stage2.channels"] == (32, 64)
    drawn = read().draw(many)
    assert drawn.arch.block == "bottleneck"
    assert [(stage.channels, stage.blocks) for stage in drawn.arch.stages] == [(32, 4), (32, 4), (64, 4)]
    assert (drawn.arch.stem.kernel, drawn.arch.stem.channels) == (5, 16)
    assert (drawn.arch.dropout, drawn.arch.zero_init) == (0.2, True)
    assert (drawn.train.lr, drawn.train.milestones) == (0.1, (0.5, 0.75))
    assert (drawn.train.augment.flip, drawn.train.augment.rotation) == ("none", 10.0)


@pytest.mark.parametrize("text", [WHOLE, *(p.read_text() for p in sorted(shipped_folder().glob("*.yaml")))])
def test_drawn_candidate_comes_back_from_its_json(text: str) -> None:
    for drawn in read(text).uniform_draws(20, seed=3):
        assert Candidate.from_json(drawn.to_json()) == drawn


@pytest.fixture
def optuna_study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def test_a_trial_that_was_cut_off_in_or_after_its_draw_keeps_what_it_had(optuna_study: optuna.Study) -> None:
    space = read()
    trial = optuna_study.ask()
    halves = {slot.name: slot.value(trial) for slot in space.slots[:4]}
    drawn = space.draw(optuna.Trial(optuna_study, trial._trial_id))
    assert halves.items() <= ({s.name: s.domain for s in space.slots if not s.drawn} | trial.params).items()
    assert space.draw(optuna.Trial(optuna_study, trial._trial_id)) == drawn


def test_optuna_sees_one_rectangular_space(optuna_study: optuna.Study) -> None:
    space = read()
    for _ in range(10):
        trial = optuna_study.ask()
        space.draw(trial)
        optuna_study.tell(trial, 0.0)
    shared = optuna.search_space.intersection_search_space(optuna_study.trials)
    assert shared == {slot.name: slot.domain for slot in space.slots if isinstance(slot.domain, BaseDistribution)}


def test_uniform_draws_stay_within_their_ranges_and_reach_both_ends() -> None:
    space = read()
    lots = UniformDraw(seed=0)
    seen: dict[str, set[Any]] = {slot.name: set() for slot in space.slots}
    for _ in range(300):
        values = {slot.name: slot.value(lots) for slot in space.slots}
        for slot in space.slots:
            seen[slot.name].add(values[slot.name])
            assert slot.holds(values[slot.name]), slot.name
    assert seen["stage0.blocks"] == {1, 2, 3, 4}
    assert seen["stage0.channels"] == {16, 24, 32}
    assert {round(v, 9) for v in seen["dropout"]} == {0.0, 0.1, 0.2}


def slot_of(line: str) -> Slot:
    (slot,) = [slot for slot in read(with_train(line)).slots if slot.path[-1] == line.partition(":")[0].strip("{ ")]
    return slot


@pytest.mark.parametrize(
    ("line", "value", "nearest"),
    [
        ("lr: {type: float, low: 0.1, high: 0.4, log: true}", 0.2, 0.2),
        ("lr: {type: float, low: 0.1, high: 0.4, log: true}", 0.01, 0.1),
        ("lr: {type: float, low: 0.1, high: 0.4, log: true}", 3.0, 0.4),
        ("label_smoothing: {type: float, low: 0.0, high: 0.3, step: 0.1}", 0.19, 0.2),
        ("label_smoothing: {type: float, low: 0.0, high: 0.3, step: 0.1}", 0.5, 0.3),
        ("weight_decay: {type: float, low: 0.0, high: 5.0, step: 1.0}", 2.3, 2.0),
        ("batch_size: {type: int, low: 32, high: 128, step: 32}", 100, 96),
        ("batch_size: {type: int, low: 32, high: 128}", 100, 100),
        ("batch_size: {type: categorical, choices: [32, 128]}", 64, 32),
        ("optimiser: {type: categorical, choices: [adam, sgd]}", "sgd", "sgd"),
        ("optimiser: {type: categorical, choices: [adam, sgd]}", "adamw", "adam"),
        ("nesterov: {type: categorical, choices: [true, false]}", False, False),
        ("lr: 0.1", 0.1, 0.1),
        ("lr: 0.1", 0.2, 0.1),
    ],
)
def test_value_from_elsewhere_is_kept_or_brought_to_the_nearest_that_may_be_drawn(line: str, value: Any, nearest: Any) -> None:
    slot = slot_of(line)
    assert slot.holds(value) == (value == nearest)
    assert (value if slot.holds(value) else slot.nearest(value)) == pytest.approx(nearest)
    assert slot.holds(slot.nearest(value))


def test_candidate_that_was_drawn_here_has_its_own_values() -> None:
    space = read()
    for drawn in space.uniform_draws(20, seed=5):
        assert space.candidate(space.first_values | space.values_nearest_to(drawn)) == drawn


def test_stages_that_a_candidate_lacks_have_no_values() -> None:
    space = read()
    two = space.draw(Recorder(0))
    assert {name for name in space.describe() if name not in space.values_nearest_to(two)} == {
        slot.name for slot in space.slots if slot.path[:3] == ("arch", "stage", 2)
    }


def test_stem_as_wide_as_the_first_stage_is_brought_into_a_range_of_widths() -> None:
    space = read(with_arch("stem: {channels: {type: int, low: 4, high: 16}}"))
    plain = read(with_arch("block: basic")).draw(Recorder(0))
    assert plain.arch.stem.channels is None
    assert space.values_nearest_to(plain)["stem.channels"] == 8


def test_space_warns_of_what_its_fixed_values_never_reach() -> None:
    text = with_train("schedule: multistep\n  milestones: [0.5, 1.2]")
    assert read(text).warnings() == ["milestones 1.2 are at or after the end of the run, and would never be reached"]
    assert read().warnings() == []


def test_space_warns_of_widths_between_blocks_of_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    plain = read(with_arch("block: basic"))
    for runtime, warned in (("onnxruntime", True), ("torch", False)):
        latency = LatencyConfig(max_ms=5, runtime=runtime)
        space = replace(plain, budget=plain.budget.model_copy(update={"latency": latency}))
        assert ["blocks of 16" in warning for warning in space.warnings()] == [True] * warned
        whole = IntDistribution(16, 64, step=16)
        slots = (replace(one, domain=whole) if one.name.endswith(".channels") else one for one in space.slots)
        assert replace(space, slots=tuple(slots)).warnings() == []


def fitting(fit: str = "params", text: str = WHOLE) -> Space:
    return read(text + f"fit: {fit}\n")


def params_of(space: Space, candidate: Candidate) -> int:
    return closed_form_params(candidate.arch, space.images)


def test_drawn_widths_are_scaled_until_the_budget_of_the_search_is_filled_on_its_images() -> None:
    drawn = list(fitting().uniform_draws(30, seed=1))
    assert all(294_000 <= params_of(fitting(), one) <= 300_000 for one in drawn)
    assert list(fitting().uniform_draws(30, seed=1)) == drawn
    many = ImageShape(channels=1, size=28, classes=200)
    space = replace(fitting(), budget=BudgetConfig(params=1_000_000)).for_images(many)
    assert all(980_000 <= params_of(space, one) <= 1_000_000 for one in space.uniform_draws(3, seed=1))


def test_share_of_the_budget_is_drawn_as_one_more_slot() -> None:
    space, recorder = fitting("{params: {low: 0.25, high: 0.75, log: true}}"), Recorder(0)
    space.draw(recorder)
    assert recorder.asked["fill"] == (0.25, 0.75, None, True)
    shares = [params_of(space, drawn) / 300_000 for drawn in space.uniform_draws(50, seed=1)]
    assert 0.24 < min(shares) < 0.3
    assert 0.65 < max(shares) <= 0.75


def test_a_stage_that_is_not_built_does_not_change_the_others() -> None:
    space = fitting()
    values = space.first_values
    assert values["stages"] == 2
    assert space.candidate(values) == space.candidate(values | {"stage2.channels": 64})


def test_unscaled_space_has_the_widths_that_were_drawn() -> None:
    assert fitting().fills
    plain = fitting().unscaled()
    assert not plain.fills
    assert plain.draw(Recorder(1)) == read().draw(Recorder(1)) != fitting().draw(Recorder(1))


@pytest.mark.parametrize(
    ("channels", "step"),
    [
        ("{type: int, low: 16, high: 64, step: 12}", 12),
        ("{type: int, low: 16, high: 64}", 1),
        ("{type: int, low: 16, high: 64, log: true}", 1),
        ("{type: categorical, choices: [16, 24, 64]}", 8),
        ("{type: categorical, choices: [16, 20]}", 1),
        ("48", 8),
        ("45", 1),
    ],
)
def test_widths_are_scaled_in_their_own_steps(channels: str, step: int) -> None:
    text = f"version: 1\nbudget: {{params: 5M}}\narch: {{stages: 2, stage: {{blocks: 1, channels: {channels}}}}}\n"
    space = fitting(text=text)
    assert [slot.step for slot in space.slots if slot.name.endswith(".channels")] == [step, step]
    widths = [stage.channels for stage in space.draw(Recorder(1)).arch.stages]
    assert [width % max(1, step // 4) for width in widths] == [0, 0]


@pytest.mark.parametrize("fit", ["params", "{params: {low: 0.3, high: 1.0, log: true}}"])
@pytest.mark.parametrize(
    "text", [WHOLE, *((shipped_folder() / f"{name}.yaml").read_text() for name in ("resnet-small", "digits"))]
)
def test_candidate_that_was_scaled_here_has_ratios_that_give_it_again(text: str, fit: str) -> None:
    space, found = fitting(fit, text), 0
    for drawn in space.uniform_draws(40, seed=5):
        values = space.values_nearest_to(drawn)
        assert [name for name, value in values.items() if not space.by_name[name].holds(value)] == []
        found += space.candidate(space.first_values | values) == drawn
    assert found >= 26  # where the share is drawn, the target is the count itself, and the scaling may stop before it


def test_whether_and_how_widths_are_scaled_is_part_of_the_meaning() -> None:
    plain, whole, share = read(), fitting(), fitting("{params: {low: 0.5, high: 1.0}}")
    assert len({space.fingerprint for space in (plain, whole, share, fitting("{params: 0.9}"))}) == 4
    assert fitting("{params: 1.0}").fingerprint == whole.fingerprint
    assert whole.describe()["fill"] == "1.0 of the budget's parameters"
    assert share.describe()["fill"] == "float 0.5 to 1.0 of the budget's parameters"
    assert "fill" not in plain.describe()
    names = ("stages", "stage0.blocks", "stage0.channels", "stage1.channels", "dropout", "lr", "stem.channels", "epochs")
    assert [plain.describe()[name] for name in names] == [
        "int 2 to 3",
        "int 1 to 4 log",
        "int 16 to 32 step 8",
        "32",
        "float 0.0 to 0.2 step 0.1",
        "float 0.001 to 0.1 log",
        "one of null, 16",
        "6",
    ]
    changed = {name: text for name, text in whole.describe().items() if plain.describe().get(name) != text}
    assert changed["stage0.channels"] == "int 16 to 32 step 8, scaled"
    assert changed["stem.channels"] == "one of null, 16, scaled"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# nothing\n", ""),
        ("version: 1\n", "# a comment\nversion: 1\n"),
        ("low: 1e-3", "low: 0.001"),
        ("low: 0, high: 10", "low: 0.0, high: 1.0e+1"),
        ("kernel: {type: categorical, choices: [3, 5]}", "kernel: {choices: [3, 5], type: categorical}"),
        ("params: 300k, macs: 50M", "params: 400k"),
        ("[false, true]", "[no, yes]"),
    ],
)
def test_fingerprint_stays_where_the_meaning_of_the_draws_does(before: str, after: str) -> None:
    text = "# nothing\n" + WHOLE
    assert before in text
    assert read(text.replace(before, after, 1)).fingerprint == read(text).fingerprint


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("low: 2, high: 3}", "low: 1, high: 3}"),
        ("[basic, bottleneck]", "[bottleneck, basic]"),
        ("[basic, bottleneck]", "[basic]"),
        ("high: 4, log: true", "high: 4"),
        ("step: 8", "step: 16"),
        ("step: 0.1", "step: 0.2"),
        ("      - 32\n", "      - 33\n"),
        ("epochs: 6", "epochs: 7"),
        ("milestones: [0.5, 0.75]", "milestones: [0.5, 0.8]"),
        ("flip: none", "flip: horizontal"),
        ("  zero_init: {type: categorical, choices: [false, true]}\n", ""),
        ("[null, 16]", "[16]"),
    ],
)
def test_fingerprint_changes_with_the_meaning_of_the_draws(before: str, after: str) -> None:
    assert before in WHOLE
    assert read(WHOLE.replace(before, after, 1)).fingerprint != read(WHOLE).fingerprint


def test_another_number_of_epochs_is_another_meaning() -> None:
    space = read()
    longer = space.with_epochs(12)
    assert (space.epochs, longer.epochs) == (6, 12)
    assert longer.draw(Recorder(0)).train.epochs == 12
    assert longer.fingerprint != space.fingerprint
    assert longer.with_epochs(6).fingerprint == space.fingerprint

"""A training that was cut off ends as if it had not been: bit by bit the same weights, averages and metrics."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.device import Precision
from nas.paths import TrialPaths
from nas.train import loop
from nas.train.checkpoint import read_curve

ASKED_AN_EPOCH = 6 + 2
"""Times: before each step, and before the evaluations of the raw and of the averaged weights."""
BF16 = Precision(torch.bfloat16, False, "for the test")

VARIANTS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "bf16": {"precision": BF16},
    "adamw": {"optimiser": "adamw", "lr": 0.01},
    "no average": {"ema_epochs": 0.0},
    "sam": {"sam_rho": 0.05},
    "muon": {"optimiser": "muon"},
    "whitening": {"arch": {"stem": {"type": "whitening"}}},
    "hardest": {"hardest": 0.96},
    "mixed": {"augment": {"flip": "alternating", "mix": "mixup_or_cutmix", "cutout": 3}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_cut_off_within_epochs_and_between_them_it_ends_the_same(
    training: Any, tmp_path: Path, after_asking: Callable[[int], Any], same: Callable[[Any, Any], None], variant: str
) -> None:
    changes = dict(VARIANTS[variant])
    precision = changes.pop("precision", training.precision)
    varied = training.changed(**changes)
    varied.precision = precision
    whole = varied(tmp_path / "whole")
    averages = varied.candidate.train.ema_epochs > 0
    cuts = [0, 2, 4, 0, 1, 2 * (7 + averages)]  # before steps 1 and 3, the first evaluation, twice, the next one, and far on
    for times in cuts:
        cut = varied(tmp_path / "cut", should_suspend=after_asking(times))
        assert cut.result.status == "suspended"
    same(whole, varied(tmp_path / "cut"))


@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
def test_compiling_on_the_way_leaves_the_choice_of_the_hardest_images(
    training: Any,
    tmp_path: Path,
    after_asking: Callable[[int], Any],
    same: Callable[[Any, Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Epochs of four steps, passes of three: an epoch that is resumed in its second pass must not choose the first one again."""
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: model)
    varied = training.changed(hardest=0.5, epoch_images=128)
    whole = varied(tmp_path / "whole")
    varied(tmp_path / "cut", should_suspend=after_asking(3 + 1), compiling=lambda text: None)
    same(whole, varied(tmp_path / "cut", compiling=lambda text: None))


def test_a_resumed_training_says_again_what_it_knows(
    training: Any, tmp_path: Path, after_asking: Callable[[int], Any], without_clock: Callable[[Any], Any]
) -> None:
    training(tmp_path, should_suspend=after_asking(2 * ASKED_AN_EPOCH + 1))
    first = read_curve(tmp_path / "metrics.jsonl")
    resumed = training(tmp_path)
    assert resumed.heard[:2] == first, "seconds and all: these epochs were not trained again"
    assert [metrics.epoch for metrics in resumed.heard] == [1, 2, 3, 4]


def test_a_no_to_what_is_said_again_stops_it_before_it_trains(
    training: Any, tmp_path: Path, after_asking: Callable[[int], Any]
) -> None:
    training(tmp_path, should_suspend=after_asking(2 * ASKED_AN_EPOCH + 1))
    asked = []
    stopped = training(tmp_path, on_epoch=lambda m: m.epoch < 2, should_suspend=lambda: bool(asked.append(1)))
    assert stopped.result.status == "stopped"
    assert [metrics.epoch for metrics in stopped.heard] == [1, 2]
    assert not asked


def test_a_finished_training_is_not_trained_again(training: Any, tmp_path: Path, same: Callable[[Any, Any], None]) -> None:
    whole = training(tmp_path)
    again = training(tmp_path, should_suspend=lambda: True)
    assert again.heard == whole.heard
    same(whole, again)


@pytest.mark.parametrize("damage", ["truncated", "mismatched", "garbage"])
def test_without_a_usable_checkpoint_it_starts_again(
    training: Any, tmp_path: Path, same: Callable[[Any, Any], None], after_asking: Callable[[int], Any], damage: str
) -> None:
    whole = training(tmp_path / "whole")
    other = training.changed()
    other.identity = "another" if damage == "mismatched" else training.identity
    other(tmp_path / "cut", should_suspend=after_asking(2 * ASKED_AN_EPOCH + 1))
    paths = TrialPaths(tmp_path / "cut")
    if damage == "truncated":
        paths.checkpoint.write_bytes(paths.checkpoint.read_bytes()[:-1000])
    elif damage == "garbage":
        paths.checkpoint.write_bytes(b"no checkpoint")
    again = training(tmp_path / "cut")
    assert [metrics.epoch for metrics in again.heard] == [1, 2, 3, 4]
    same(whole, again)


def test_time_spent_before_a_suspension_counts(
    training: Any, tmp_path: Path, after_asking: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, should_suspend=after_asking(3))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    state["seconds"] += 1000
    torch.save(state, tmp_path / "checkpoint.pt")
    first, second, *_ = training(tmp_path).heard
    assert first.seconds > 1000
    assert second.seconds < 1000


def finish(training: Any, folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    run = training(folder)
    torch.save({"raw": run.model.state_dict(), "averaged": run.result.model.state_dict()}, folder / "end.pt")


def test_in_another_process_it_ends_the_same(
    training: Any,
    tmp_path: Path,
    after_asking: Callable[[int], Any],
    equal_states: Callable[[Any, Any], bool],
    without_clock: Callable[[Any], Any],
) -> None:
    whole = training(tmp_path / "whole")
    cut = training(tmp_path / "cut", should_suspend=after_asking(2 * ASKED_AN_EPOCH + 3))
    process = multiprocessing.get_context("spawn").Process(
        target=finish, args=(training, tmp_path / "cut", torch.get_num_threads())
    )
    process.start()
    process.join(240)
    assert process.exitcode == 0
    end = torch.load(tmp_path / "cut" / "end.pt", weights_only=True)
    assert equal_states(end["raw"], dict(whole.model.state_dict()))
    assert equal_states(end["averaged"], dict(whole.result.model.state_dict()))
    assert without_clock(read_curve(cut.paths.metrics)) == without_clock(whole.result.curve)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("begun_on", ["mps", "cuda"])
def test_what_one_device_began_another_finishes(
    training: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after_asking: Callable[[int], Any],
    begun_on: str,
    optimiser: str,
) -> None:
    """Fused kernels, and a gradient scaler that is left to them, are of CUDA alone; the CPU computes here as either would."""
    real, run = loop.make_optimiser, training.changed(optimiser=optimiser, epochs=2)
    for device, ends in ((begun_on, "suspended"), ({"mps": "cuda", "cuda": "mps"}[begun_on], "finished")):
        run.precision = Precision(None, device == "cuda", "as there")
        fused = torch.device("cpu" if device == "cuda" else "mps")
        monkeypatch.setattr(loop, "make_optimiser", lambda model, config, _, *more, on=fused: real(model, config, on, *more))
        more = {"should_suspend": after_asking(10)} if ends == "suspended" else {}
        result = run(tmp_path, **more).result
        assert result.status == ends
    assert result.curve[1].train_loss < result.curve[0].train_loss

"""What only a CUDA device can show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.data.loader import Resident
from nas.data.stream import Streamed
from nas.device import out_of_memory, pick_precision, release_memory
from nas.train import loop
from nas.train.loop import _Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]


@pytest.fixture
def on_gpu(training: Any) -> Any:
    changed = training.changed()
    changed.device = torch.device("cuda")
    changed.precision = pick_precision(changed.device)
    return changed


def test_two_epochs_train(on_gpu: Any, tmp_path: Path) -> None:
    run = on_gpu.changed(epochs=2)(tmp_path)
    assert run.result.status == "finished"
    assert run.result.curve[1].train_loss < run.result.curve[0].train_loss
    assert {p.device.type for p in run.result.model.parameters()} == {"cuda"}


def test_a_training_that_was_cut_off_goes_on(
    on_gpu: Any, tmp_path: Path, after_asking: Callable[[int], Any], without_clock: Callable[[Any], Any]
) -> None:
    """Not bit by bit: some kernels add up in an order that differs from run to run."""
    whole = on_gpu(tmp_path / "whole")
    assert on_gpu(tmp_path / "cut", should_suspend=after_asking(10)).result.status == "suspended"
    resumed = on_gpu(tmp_path / "cut")
    assert resumed.result.status == "finished"
    for one, other in zip(whole.result.curve, resumed.result.curve, strict=True):
        assert (one.epoch, one.lr) == (other.epoch, other.lr)
        assert one.train_loss == pytest.approx(other.train_loss, rel=0.05)


@pytest.mark.parametrize("storage", [Resident, Streamed], ids=["resident", "streamed"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"sam_rho": 0.05}, {"optimiser": "adamw", "lr": 0.01}, {"optimiser": "muon"}],
    ids=["sgd", "sam", "adamw", "muon"],
)
def test_nothing_within_an_epoch_waits_for_the_device(
    on_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], storage: type[Resident]
) -> None:
    data = on_gpu.dataset

    def place(first: int, count: int) -> Resident:
        return storage(data.train, data.mean, data.std, on_gpu.device, np.arange(first, first + count))

    on_gpu.resident = place
    real = _Trainer.run_epoch

    def watched(self: _Trainer, should_suspend: Callable[[], bool]) -> None:
        if not self.curve:  # the first epoch loads libraries and chooses kernels
            return real(self, should_suspend)
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            return real(self, should_suspend)
        finally:
            torch.cuda.set_sync_debug_mode(before)

    monkeypatch.setattr(loop._Trainer, "run_epoch", watched)
    assert on_gpu.changed(epochs=2, **changes)(tmp_path).result.status == "finished"


def test_it_computes_in_half_precision_and_channels_last(on_gpu: Any, tmp_path: Path) -> None:
    major, _ = torch.cuda.get_device_capability()
    assert on_gpu.precision.autocast == (torch.bfloat16 if major >= 8 else torch.float16)
    seen: list[tuple[torch.dtype, bool]] = []
    make = on_gpu.model

    def watched() -> torch.nn.Module:
        model = make()
        model.stages[0][0].conv1.register_forward_hook(
            lambda _module, _inputs, output: seen.append((output.dtype, output.is_contiguous(memory_format=torch.channels_last)))
        )
        return model

    on_gpu.model = watched
    run = on_gpu(tmp_path)
    assert set(seen) == {(on_gpu.precision.autocast, True)}
    assert all(p.dtype == torch.float32 for p in run.model.parameters())
    assert run.model.stem.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_what_does_not_fit_on_it_is_told_from_other_errors() -> None:
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    assert out_of_memory(caught.value) == "the device"


def test_what_was_too_much_is_free_again(on_gpu: Any) -> None:
    device = on_gpu.device
    release_memory(device)
    before = torch.cuda.memory_reserved(device)
    cycle: list[Any] = [torch.empty(2**28, dtype=torch.uint8, device=device)]
    cycle.append(cycle)
    assert torch.cuda.memory_reserved(device) > before
    del cycle
    release_memory(device)
    assert torch.cuda.memory_reserved(device) <= before

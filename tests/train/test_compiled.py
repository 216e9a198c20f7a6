"""Training a network that torch compiles: what is traced is what trains, and a compiler that fails costs nothing else."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters


class WrappedError(Exception):
    """As torch has it around what a compiler raises."""

    inner_exception = RuntimeError("no working C++ compiler\nfound anywhere")


@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
def test_the_traced_network_trains_as_it_would_untraced(training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler behind it, which would need one for C++, and round elsewhere."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    training = training.changed({"dropout": 0.0, "stochastic_depth": 0.0}, epochs=2, sam_rho=0.05)
    notes: list[str] = []
    traced, eager = training(tmp_path / "traced", compiling=notes.append), training(tmp_path / "eager")
    assert len(notes) == 2
    assert notes[0].startswith("compiling the network")
    assert notes[1].startswith("compiled in ")
    for one, other in zip(traced.result.curve, eager.result.curve, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.ema_val_accuracy == pytest.approx(other.ema_val_accuracy, abs=0.02)
    assert traced.model.state_dict().keys() == eager.model.state_dict().keys()


def test_without_a_compiler_it_warns_and_trains_exactly_as_without(
    training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_clock: Callable[[Any], Any]
) -> None:
    def broken(model: torch.nn.Module, dynamic: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        def fail(images: torch.Tensor) -> torch.Tensor:
            model(images).sum().backward()  # as a compiler would that fails late
            raise WrappedError("backend='inductor' raised:")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    notes: list[str] = []
    tried, eager = training(tmp_path / "tried", compiling=notes.append), training(tmp_path / "eager")
    assert notes[1:] == ["Warning: torch.compile failed, so the network trains without it: RuntimeError: no working C++ compiler"]
    assert without_clock(tried.result.curve) == without_clock(eager.result.curve)


def test_each_network_is_compiled_however_many_were_before(
    training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"  # before torch 2.7
    monkeypatch.setattr(torch._dynamo.config, limit, 1)
    for stride in (1, 2):
        graphs, notes = counters["stats"]["unique_graphs"], list[str]()
        training.changed({"stem": {"stride": stride}}, epochs=1)(tmp_path / str(stride), compiling=notes.append)
        assert notes[1].startswith("compiled in ")
        assert counters["stats"]["unique_graphs"] > graphs


def test_what_was_not_compiled_is_said(training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: model)
    notes: list[str] = []
    training.changed(epochs=1)(tmp_path, compiling=notes.append)
    assert notes[1:] == ["Warning: torch.compile failed, so the network trains without it: it found nothing to compile"]


def test_too_little_memory_for_what_is_compiled_is_no_end(training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled may need more than what is not."""

    def full(images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda model, dynamic: full)
    notes: list[str] = []
    assert training(tmp_path, compiling=notes.append).result.status == "finished"
    assert "OutOfMemoryError: CUDA out of memory" in notes[1]


def test_nothing_is_compiled_for_a_training_that_is_done(training: Any, tmp_path: Path) -> None:
    training(tmp_path)
    notes: list[str] = []
    training(tmp_path, compiling=notes.append)
    assert notes == []

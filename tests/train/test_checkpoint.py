"""Checkpoints: whole or not at all, of this training or of none, and never code."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.train import checkpoint
from nas.train.checkpoint import load_checkpoint, save_checkpoint

STATE = {"identity": "mine", "model": {"w": torch.arange(1000.0)}, "curve": [{"epoch": 1, "loss": 0.5}], "step": 7}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a" / "folder" / "checkpoint.pt"


def test_what_was_saved_is_what_is_loaded(path: Path, equal_states: Callable[[Any, Any], bool]) -> None:
    save_checkpoint(path, STATE)
    assert equal_states(load_checkpoint(path, "mine"), STATE)
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


def test_there_may_be_none(path: Path) -> None:
    assert load_checkpoint(path, "mine") is None


def test_somebody_elses_is_not_taken(path: Path) -> None:
    save_checkpoint(path, STATE)
    assert load_checkpoint(path, "another") is None
    torch.save([1, 2], path)
    assert load_checkpoint(path, "mine") is None


def test_one_of_an_older_version_is_not_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "FORMAT", checkpoint.FORMAT - 1)
        save_checkpoint(path, STATE)
    assert load_checkpoint(path, "mine") is None
    path.unlink()
    torch.save(STATE, path)  # from before there were versions
    assert load_checkpoint(path, "mine") is None


def crash(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt("the process dies here")


def crash_half_way(state: Any, file: Any) -> None:
    file.write(b"half a checkpoint")
    file.flush()
    crash()


@pytest.mark.parametrize(("where", "function"), [(os, "replace"), (os, "fsync"), (torch, "save")])
def test_a_crash_while_writing_leaves_the_old_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, function: str, equal_states: Callable[[Any, Any], bool]
) -> None:
    save_checkpoint(path, STATE)
    with monkeypatch.context() as patched:
        patched.setattr(where, function, crash_half_way if function == "save" else crash)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, {**STATE, "step": 8})
    assert equal_states(load_checkpoint(path, "mine"), STATE)
    save_checkpoint(path, {**STATE, "step": 9})  # what the crash left behind is in nobody's way
    loaded = load_checkpoint(path, "mine")
    assert loaded is not None
    assert loaded["step"] == 9


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_one_counts_as_none(path: Path, share: float) -> None:
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert load_checkpoint(path, "mine") is None


def test_a_damaged_one_counts_as_none_or_is_whole(path: Path, equal_states: Callable[[Any, Any], bool]) -> None:
    """Damage between the records of the archive does no harm; anywhere else it is found."""
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        damaged = bytearray(content)
        start = int(torch.randint(len(content), (1,), generator=generator))
        noise = torch.randint(256, (8,), generator=generator, dtype=torch.uint8).numpy().tobytes()
        damaged[start : start + 8] = noise[: len(content) - start]
        path.write_bytes(damaged)
        loaded = load_checkpoint(path, "mine")
        assert loaded is None or equal_states(loaded, STATE)


@pytest.mark.parametrize("garbage", [b"", b"no checkpoint", b"\x80\x02.", b"PK\x03\x04" + bytes(100), bytes(5000)])
def test_what_is_no_checkpoint_counts_as_none(path: Path, garbage: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(garbage)
    assert load_checkpoint(path, "mine") is None


def test_a_folder_in_its_place_counts_as_none(path: Path) -> None:
    path.mkdir(parents=True)
    assert load_checkpoint(path, "mine") is None


class Trap:
    """Runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_code_in_a_checkpoint_is_never_run(path: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    trapped = {"identity": "mine", "trap": Trap(mark)}
    save_checkpoint(path, trapped)  # in torch's own format
    assert load_checkpoint(path, "mine") is None
    path.write_bytes(pickle.dumps(trapped, protocol=2))
    assert load_checkpoint(path, "mine") is None
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(trapped, protocol=2))
        archive.writestr("archive/version", "3")
    assert load_checkpoint(path, "mine") is None
    assert not mark.exists()
    pickle.loads(pickle.dumps(trapped))  # the trap does work
    assert mark.exists()

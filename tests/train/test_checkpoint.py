"""Checkpoints: whole or not at all, of this training or of none, and never code."""

import errno
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.files import is_disk_full, write_whole
from nas.train import checkpoint
from nas.train.checkpoint import load_checkpoint, save_checkpoint, trained_weights

STATE = {"identity": "mine", "model": {"w": torch.arange(1000.0)}, "curve": [{"epoch": 1, "loss": 0.5}], "step": 7}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a" / "folder" / "checkpoint.pt"


def test_what_was_saved_is_what_is_loaded(path: Path, equal_states: Callable[[Any, Any], bool]) -> None:
    assert load_checkpoint(path, "mine") == (None, "none")
    save_checkpoint(path, STATE)
    state, found = load_checkpoint(path, "mine")
    assert equal_states(state, STATE)
    assert found == "whole"
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]
    with pytest.raises(OSError, match=r"checkpoint\.pt"):
        write_whole(path / "checkpoint.pt", b"content")  # where a file is in the folder's place


@pytest.mark.parametrize("averaged", [True, False])
def test_what_was_trained_is_the_average_where_there_is_one(path: Path, averaged: bool) -> None:
    average = {"averaged": {"w": torch.ones(3)}} if averaged else {}
    save_checkpoint(path, {"identity": "mine", "model": {"w": torch.zeros(3)}, "average": average})
    weights, found = trained_weights(path, "mine")
    assert weights["w"].tolist() == [float(averaged)] * 3
    assert found == "whole"
    assert trained_weights(path, "another's") == (None, "mismatched")


def test_somebody_elses_or_one_of_an_older_version_is_not_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(path, STATE)
    assert load_checkpoint(path, "another") == (None, "mismatched")
    for other in ([1, 2], STATE):  # from before there were versions
        torch.save(other, path)
        assert load_checkpoint(path, "mine") == (None, "mismatched")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "FORMAT", checkpoint.FORMAT - 1)
        save_checkpoint(path, STATE)
    assert load_checkpoint(path, "mine") == (None, "mismatched")


def crash(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt("the process dies here")


def crash_half_way(descriptor: int) -> None:
    os.truncate(descriptor, 100)
    crash()


@pytest.mark.parametrize(
    ("where", "function", "crash"), [(os, "replace", crash), (os, "fsync", crash_half_way), (torch, "save", crash)]
)
def test_a_crash_while_writing_leaves_the_old_one(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    function: str,
    crash: Callable[..., None],
    equal_states: Callable[[Any, Any], bool],
) -> None:
    save_checkpoint(path, STATE)
    with monkeypatch.context() as patched:
        patched.setattr(where, function, crash)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, {**STATE, "step": 8})
    assert equal_states(load_checkpoint(path, "mine"), (STATE, "whole"))
    save_checkpoint(path, {**STATE, "step": 9})  # what the crash left behind is in nobody's way
    loaded, _ = load_checkpoint(path, "mine")
    assert loaded["step"] == 9
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


KILLED_WHILE_SAVING = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from nas.train.checkpoint import load_checkpoint, save_checkpoint, trained_weights

torch.set_num_threads(1)  # more do not survive a fork
path, rng, last = Path(sys.argv[1]), random.Random(0), -1
for kills in range(1000):
    if kills >= 30 and last >= 100:
        break
    child = os.fork()
    if child == 0:
        step = last
        while True:
            step += 1
            save_checkpoint(path, {"identity": "mine", "step": step, "weights": torch.full((100_000,), float(step))})
    time.sleep(rng.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    state, found = load_checkpoint(path, "mine")
    if found == "none":
        assert last == -1
        continue
    assert found == "whole", found
    assert state["step"] >= last, "an older one came back"
    assert (state["weights"] == state["step"]).all()
    last = state["step"]
assert last >= 100, "it was killed before it saved anything"
"""


def test_killed_at_any_moment_it_leaves_a_whole_one(path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, str(path)], check=True, timeout=240)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_an_error_that_says_so_and_leaves_the_old_one(
    path: Path, equal_states: Callable[[Any, Any], bool]
) -> None:
    save_checkpoint(path, STATE)
    unfinished = path.with_name("checkpoint.pt.tmp")
    unfinished.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as full:
        save_checkpoint(path, {**STATE, "step": 8})
    assert is_disk_full(full.value)
    assert full.value.filename == str(path)
    assert not unfinished.is_symlink()
    assert equal_states(load_checkpoint(path, "mine"), (STATE, "whole"))


@pytest.mark.parametrize(
    ("number", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False), (errno.EIO, False)]
)
def test_a_quota_counts_as_the_disk_and_other_faults_do_not(number: int, full: bool) -> None:
    assert is_disk_full(OSError(number, os.strerror(number))) == full


def test_what_is_whole_but_does_not_fit_in_memory_is_not_taken_for_damaged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the training would start again, and write over it."""
    save_checkpoint(path, STATE)

    def no_room(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ...")

    monkeypatch.setattr(torch, "load", no_room)
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        load_checkpoint(path, "mine")


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
        loaded, found = load_checkpoint(path, "mine")
        assert (loaded is None and found in ("damaged", "mismatched")) or (found == "whole" and equal_states(loaded, STATE))


def test_what_is_no_whole_checkpoint_counts_as_none(path: Path) -> None:
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    truncated = [content[: int(share * len(content))] for share in (0.0, 0.001, 0.1, 0.5, 0.9, 0.999)]
    for damaged in (*truncated, b"no checkpoint", b"\x80\x02.", b"PK\x03\x04" + bytes(100), bytes(5000)):
        path.write_bytes(damaged)
        assert load_checkpoint(path, "mine") == (None, "damaged")
    path.unlink()
    path.mkdir()
    assert load_checkpoint(path, "mine") == (None, "damaged")


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
    assert load_checkpoint(path, "mine") == (None, "damaged")
    path.write_bytes(pickle.dumps(trapped, protocol=2))
    assert load_checkpoint(path, "mine") == (None, "damaged")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(trapped, protocol=2))
        archive.writestr("archive/version", "3")
    assert load_checkpoint(path, "mine") == (None, "damaged")
    assert not mark.exists()
    pickle.loads(pickle.dumps(trapped))  # the trap does work
    assert mark.exists()

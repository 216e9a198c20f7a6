"""A worker whose disk is really full: it waits for room, and nothing that it had is lost."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from nas.jobs import worker
from nas.jobs.messages import Alive, Began, Ended, Epoch, FromWorker, Saved, Shutdown, Suspend, ToWorker, Waiting
from tests.jobs.working import GO_ON, Workplace, always, assert_same, curve_of, kinds, said, state_of

CHANNELS = 12
"""So that a checkpoint takes many pages."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Four megabytes in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk could be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "DISK_FULL_SECONDS", 0.05)


@pytest.fixture
def whole(tmp_path: Path) -> Workplace:
    """An undisturbed training, to compare with."""
    workplace = Workplace.led(tmp_path / "whole")
    workplace.work([workplace.order(channels=CHANNELS)])
    return workplace


def free(disk: Path) -> int:
    told = os.statvfs(disk)
    return told.f_bavail * told.f_frsize


def fill(disk: Path, leave: int = 0) -> None:
    with open(disk / "ballast", "ab") as file:
        file.write(bytes(max(0, free(disk) - leave)))
    assert free(disk) <= leave


def make_room(disk: Path) -> None:
    (disk / "ballast").unlink()


def pages(file: Path) -> int:
    """Bytes that it takes."""
    return file.stat().st_blocks * 512


def waiting_for(file: Path) -> Waiting:
    return Waiting(f"No space left on device: {file}")


@pytest.mark.parametrize("full", ["from the beginning", "after an epoch", "but for a page", "but for the checkpoint"])
def test_it_waits_for_room_and_ends_as_if_there_had_always_been(whole: Workplace, disk: Path, full: str) -> None:
    """Where there is room for the checkpoint alone, it is the curve that does not fit."""
    workplace = Workplace.led(disk / "study")
    needed = pages(whole.trial().checkpoint)
    leave = {"but for a page": needed - 4096, "but for the checkpoint": needed}.get(full, 0)
    since = "Epoch" if full == "after an epoch" else "Began"
    leftovers: list[str] = []
    saved: list[int] = []

    def answer(message: FromWorker) -> Iterable[ToWorker]:
        if type(message).__name__ == since and not (disk / "ballast").exists() and not leftovers:
            # The first curve is written next: an empty file, which takes nothing.
            fill(disk, leave)
        if isinstance(message, Waiting):
            trial = workplace.trial()
            leftovers.extend(file.name for file in trial.folder.iterdir())
            saved.append(len(state_of(trial)["curve"]) if trial.checkpoint.exists() else 0)
            if len(saved) == 3:
                make_room(disk)
        return always(message)

    heard = workplace.work([workplace.order(channels=CHANNELS)], answer)
    trial = workplace.trial()
    waited = said(Waiting, heard)
    assert waited == [waiting_for(trial.metrics if full == "but for the checkpoint" else trial.checkpoint)] * 3
    before_it = 1 if full == "after an epoch" else 0
    assert [kind for kind in kinds(heard) if kind != "Waiting"] == ["Ready", "Began", "Epoch", "Epoch", "Ended"]
    assert kinds(heard)[2 + before_it : 5 + before_it] == ["Waiting"] * 3, "and of an epoch nobody hears before it is saved"
    assert saved == [1 if full in ("after an epoch", "but for the checkpoint") else 0] * 3, "what was saved before is intact"
    assert not [name for name in leftovers if name.endswith(".tmp")]
    assert_same(whole.trial(), trial)


@pytest.mark.parametrize("epoch", [1, 2])
def test_suspended_while_it_waits_it_ends_with_what_it_had(whole: Workplace, disk: Path, epoch: int) -> None:
    """In the last epoch, too: what is not saved has not been trained."""
    workplace = Workplace.led(disk / "study")

    def answer(message: FromWorker) -> Iterable[ToWorker]:
        if isinstance(message, Began if epoch == 1 else Epoch):
            fill(disk)
        return [Suspend()] if isinstance(message, Waiting) else always(message)

    heard = workplace.work([workplace.order(channels=CHANNELS)], answer)
    assert kinds(heard) == ["Ready", "Began", *["Epoch"] * (epoch - 1), "Waiting", "Ended"]
    assert heard[-1] == Ended("suspended")
    trial = workplace.trial()
    assert sorted(file.name for file in trial.folder.iterdir()) == ["checkpoint.pt", "metrics.jsonl"][2 - epoch :]
    assert len(curve_of(trial)) == epoch - 1
    make_room(disk)
    again = workplace.work([workplace.order(channels=CHANNELS)])
    assert again[1] == Began(epoch - 1, "whole" if epoch > 1 else "none")
    assert_same(whole.trial(), trial)


def test_suspended_where_there_is_no_room_it_ends_at_once(whole: Workplace, disk: Path) -> None:
    workplace = Workplace.led(disk / "study")

    def answer(message: FromWorker) -> Iterable[ToWorker]:
        if isinstance(message, Epoch):
            fill(disk)
            return [GO_ON, Suspend()]
        return []

    heard = workplace.work([workplace.order(channels=CHANNELS)], answer)
    assert kinds(heard) == ["Ready", "Began", "Epoch", "Ended"]
    assert heard[-1] == Ended("suspended")
    assert len(state_of(workplace.trial())["curve"]) == 1
    make_room(disk)
    workplace.work([workplace.order(channels=CHANNELS)])
    assert_same(whole.trial(), workplace.trial())


def usurp(workplace: Workplace) -> list[ToWorker]:
    workplace.paths.token.write_text("b")
    return []


@pytest.mark.parametrize("end", [usurp, lambda workplace: [Shutdown()]], ids=["deposed", "shut down"])
def test_while_it_waits_it_heeds_who_ends_it(disk: Path, end: Callable[[Workplace], list[ToWorker]]) -> None:
    workplace = Workplace.led(disk / "study")
    before: dict[str, bytes] = {}

    def answer(message: FromWorker) -> Iterable[ToWorker]:
        if isinstance(message, Epoch):
            before.update(workplace.files())
            fill(disk)
        if isinstance(message, Waiting):
            orders = end(workplace)
            make_room(disk)
            return orders
        return always(message)

    heard = workplace.work([workplace.order(channels=CHANNELS)], answer)
    assert kinds(heard) == ["Ready", "Began", "Epoch", "Waiting"]
    assert workplace.files() == before


def test_while_it_waits_it_is_heard_of(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes it for one that hangs."""
    monkeypatch.setattr(worker, "DISK_FULL_SECONDS", 0.6)
    monkeypatch.setattr(worker, "ALIVE_SECONDS", 0.1)
    workplace = Workplace.led(disk / "study")
    heard: list[FromWorker] = []

    def answer(message: FromWorker) -> Iterable[ToWorker]:
        if isinstance(message, Began):
            fill(disk)
        heard.append(message)
        return [Suspend()] if len(said(Waiting, heard)) == 2 else always(message)

    workplace.work([workplace.order(channels=CHANNELS)], answer)
    first, second = (i for i, message in enumerate(heard) if isinstance(message, Waiting))
    assert len(said(Alive, heard[first:second])) >= 2


@pytest.fixture
def temporary(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another machine's folder for temporary files, on the small disk."""
    folder = disk / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_one_that_does_not_see_the_study_waits_for_room_on_its_own_disk(
    whole: Workplace, disk: Path, temporary: Path, tmp_path: Path
) -> None:
    workplace = Workplace.led(tmp_path / "study")
    workplace.paths.token.unlink()

    def answer(message: FromWorker) -> Iterable[ToWorker]:
        if isinstance(message, Began):
            fill(disk)
        if isinstance(message, Waiting):
            make_room(disk)
        return always(message)

    heard = workplace.work([workplace.order(channels=CHANNELS)], answer)
    assert kinds(heard) == ["Ready", "Began", "Waiting", "Saved", "Epoch", "Saved", "Epoch", "Ended"]
    (waited,) = said(Waiting, heard)
    assert str(temporary) in waited.reason
    workplace.trial().folder.mkdir(parents=True)
    workplace.trial().checkpoint.write_bytes(said(Saved, heard)[-1].checkpoint)
    assert state_of(workplace.trial()) == state_of(whole.trial())


@pytest.mark.parametrize("given", [False, True], ids=["from the start", "with a checkpoint"])
def test_one_that_does_not_see_the_study_never_replaces_its_checkpoint_by_less(
    whole: Workplace, disk: Path, temporary: Path, tmp_path: Path, given: bool
) -> None:
    """Suspended before its disk took even the checkpoint that it was to go on from, it has none to send."""
    workplace = Workplace.led(tmp_path / "study")
    workplace.paths.token.unlink()
    checkpoint = whole.trial().checkpoint.read_bytes() if given else None
    fill(disk)
    order = workplace.order(channels=CHANNELS, checkpoint=checkpoint)
    heard = workplace.work([order], lambda message: [Suspend()] if isinstance(message, Waiting) else always(message))
    assert kinds(heard) == ["Ready", *([] if given else ["Began"]), "Waiting", "Ended"]
    assert heard[-1] == Ended("suspended")
    assert not list(temporary.iterdir())

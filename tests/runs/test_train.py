"""What may be in the way of the trainings of a command: memory, disks, other processes, and workers that die."""

import errno
from pathlib import Path
from typing import Any

import pytest

import nas.train.loop
from nas.errors import StudyError
from nas.paths import StudyPaths
from nas.runs.load import load_network
from nas.specs import RetrainSpec
from nas.train.checkpoint import EpochMetrics
from nas.train.loop import fit
from tests.runs.told import Told, train_one, trained


@pytest.fixture
def spec(study: StudyPaths) -> RetrainSpec:
    return RetrainSpec(study, epochs=1, train_subset=128, device="cpu")


@pytest.mark.usefixtures("trained_here")
def test_memory_that_runs_out_halves_the_micro_batches(spec: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[int] = []

    def scarce(*args: Any, **keywords: Any) -> Any:
        parts.append(keywords["micro_batches"])
        if parts[-1] < 2:
            raise MemoryError
        return fit(*args, **keywords)

    monkeypatch.setattr(nas.train.loop, "fit", scarce)
    told = Told()
    run, card = trained(spec, told)
    assert parts == [1, 2]
    batch = card.candidate.train.batch_size
    assert told.notes == [
        f"{run.folder.name}: the memory of the host ran out; it restarts with micro-batches of {batch // 2} images"
    ]
    load_network(run)


@pytest.mark.usefixtures("trained_here")
def test_memory_that_never_suffices_is_said(spec: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def impossible(*args: Any, **keywords: Any) -> Any:
        raise MemoryError("too much")

    monkeypatch.setattr(nas.train.loop, "fit", impossible)
    with pytest.raises(StudyError, match=r"the training of trial-.* failed: the memory of the host does not suffice"):
        train_one(spec)


@pytest.mark.usefixtures("trained_here")
def test_full_disk_is_waited_for_and_said_once(spec: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    full = iter([True, True])
    write = nas.train.checkpoint.write_whole

    def sometimes(path: Path, content: Any) -> None:
        if path.name == "checkpoint.pt" and next(full, False):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr("nas.train.checkpoint.write_whole", sometimes)
    monkeypatch.setattr("nas.jobs.worker.DISK_FULL_SECONDS", 0.01)
    told = Told()
    run, _ = trained(spec, told)
    name = run.folder.name
    assert len(told.notes) == 2
    assert told.notes[0].startswith(f"{name} pauses and tries again every few seconds: No space left on device")
    assert told.notes[1] == f"{name} resumes"


@pytest.mark.usefixtures("trained_here")
def test_checkpoint_that_is_lost_before_the_end_is_said(spec: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(*args: Any, **keywords: Any) -> Any:
        result = fit(*args, **keywords)
        keywords["paths"].checkpoint.unlink()
        return result

    monkeypatch.setattr(nas.train.loop, "fit", forgetful)
    with pytest.raises(StudyError, match="which held the trained network, is gone"):
        train_one(spec)


def test_run_that_another_process_trains_is_left_to_it(spec: RetrainSpec) -> None:
    said: list[str] = []

    class Meanwhile(Told):
        def on_epoch(self, plan: Any, metrics: EpochMetrics) -> None:
            with pytest.raises(StudyError) as refused:
                train_one(spec)
            said.append(refused.value.message)

    run, _ = trained(spec, Meanwhile())
    assert said == [f"run {run.folder.name!r} is being trained by another nas retrain"]

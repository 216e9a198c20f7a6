"""What may be in the way of the trainings of a command: memory, disks, other processes, and workers that die; their threads."""

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import nas.train.checkpoint
import nas.train.loop
from nas.config import DataConfig
from nas.errors import StudyError
from nas.jobs.local import LocalExecutor
from nas.jobs.messages import Epoch, FromWorker
from nas.jobs.placement import DeviceGroup, Placement
from nas.paths import StudyPaths
from nas.runs import train as workers
from nas.runs.ablate import run_ablation
from nas.runs.load import load_network
from nas.runs.retrain import retrain_several
from nas.runs.select import find_names
from nas.specs import AblateSpec, RetrainSpec, SeveralSpec
from nas.train.checkpoint import EpochMetrics
from nas.train.loop import fit
from tests.runs.known import asked, train
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

    monkeypatch.setattr("nas.jobs.worker.fit", scarce)
    told = Told()
    run, card = trained(spec, told)
    assert parts == [1, 2]
    batch = card.candidate.train.batch_size
    assert told.notes == [
        f"{run.folder.name}: the memory of the host ran out; it resumes with micro-batches of {batch // 2} images"
    ]
    load_network(run)


@pytest.mark.usefixtures("trained_here")
def test_memory_that_never_suffices_is_said(spec: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def impossible(*args: Any, **keywords: Any) -> Any:
        raise MemoryError("too much")

    monkeypatch.setattr("nas.jobs.worker.fit", impossible)
    with pytest.raises(StudyError, match=r"the training of trial-.* failed: the host has too little memory"):
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

    monkeypatch.setattr("nas.jobs.worker.fit", forgetful)
    with pytest.raises(StudyError, match="the checkpoint of the trained network, is gone"):
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


@pytest.mark.usefixtures("trained_here", "here", "mine")
@pytest.mark.parametrize("command", ["one", "several", "ablation", "baselines"])
def test_whoever_trains_is_told_how_far_an_epoch_is(
    spec: RetrainSpec, command: str, study: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.jobs.worker.ALIVE_SECONDS", 0.0)
    told = Told()
    if command == "one":
        train_one(spec, told)
    else:
        {"several": several, "ablation": ablation, "baselines": baselines}[command](study, told)
    for name in {name for name, _ in told.epochs}:
        steps = [(epoch, done) for run, epoch, done, total in told.progress if run == name]
        totals = {total for run, _, _, total in told.progress if run == name}
        assert len(totals) == 1
        epochs = [epoch for run, epoch in told.epochs if run == name]
        assert steps == [(epoch, step) for epoch in epochs for step in range(*totals)]


class Dying(LocalExecutor):
    """Its workers are killed after each epoch, before they hear whether to go on."""

    def receive(self, timeout: float) -> list[tuple[int, FromWorker]]:
        arrived = super().receive(timeout)
        for worker, message in arrived:
            if isinstance(message, Epoch):
                self.kill(worker)
        return arrived


def several(study: StudyPaths, told: Told) -> Any:
    base = RetrainSpec(study, epochs=2, train_subset=100, hold_out=0.2, device="cpu")
    spec = SeveralSpec(base, find_names(study, ["top:2"]), (0,))
    return retrain_several(spec, told.on_plan, told, told.stop)


def ablation(study: StudyPaths, told: Told) -> Any:
    spec = AblateSpec(study, factors=("activation=gelu",), seeds=(0,), epochs=2, train_subset=100, hold_out=0.2, device="cpu")
    return run_ablation(spec, told.on_plan, told, told.stop)


def baselines(study: StudyPaths, told: Told) -> Any:
    return train(asked(study, "mine.py:Net", "mine.py:Large", epochs=2), told)


@pytest.mark.usefixtures("here", "mine")
@pytest.mark.parametrize("command", [several, ablation, baselines])
def test_run_whose_worker_dies_in_every_epoch_is_given_up_once_and_resumes_later(
    study: StudyPaths, command: Callable[[StudyPaths, Told], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    with monkeypatch.context() as broken:
        broken.setattr("nas.runs.train.LocalExecutor", Dying)
        done = command(study, told)
    assert len(done.failures) == 2
    assert set(done.failures.values()) == {"its worker died 3 times, last with SIGKILL"}
    assert done.suspended == 0
    for name in done.failures:
        assert sum(note.startswith(f"{name} failed: ") for note in told.notes) == 1
        assert max(epoch for run, epoch in told.epochs if run == name) == 1, "it got no further"

    again = Told()
    done = command(study, again)
    assert (done.failures, done.suspended) == ({}, 0)
    assert sum("resumes after epoch 1" in note for note in again.notes) == 2, "nothing that was trained is lost"


@pytest.mark.parametrize(
    ("where", "times"),
    [
        (DeviceGroup(torch.device("cpu")), True),
        (DeviceGroup(torch.device("cpu"), wanted_threads=1), False),
        (DeviceGroup(torch.device("cpu"), processes=2), False),  # all of them would have to choose the same
        (DeviceGroup(torch.device("cuda:0")), False),
        (Placement("cpu"), True),
        (Placement("cpu", threads=1), False),
    ],
)
def test_threads_are_timed_on_the_cpu_unless_their_number_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: DeviceGroup | Placement, times: bool
) -> None:
    monkeypatch.setattr(workers, "read_settings", lambda paths: SimpleNamespace(data=DataConfig(dataset="digits")))
    monkeypatch.setattr(workers.LocalExecutor, "prepare", lambda executor: None)
    with workers.prepared_workers(StudyPaths(tmp_path), where, [SimpleNamespace(has_ended=False)]) as executor:
        assert [plan.times_threads for plan in executor.plans] == [times]

"""A worker whose memory does not suffice: it says so, frees what it had taken, and trains the next one."""

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas.jobs import worker
from nas.jobs.messages import Began, Broken, Ended, FromWorker, OutOfMemory, ToWorker, Train
from nas.jobs.worker import EXIT_BROKEN, run_worker
from tests.jobs.working import FakeChannel, Workplace, always, assert_same, kinds, said

TOO_LITTLE = "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 1.00 GiB"


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[nn.Module]]:
    """Of each training; they refuse more than twelve images at once while they train, in the very last layer."""
    made: list[weakref.ref[nn.Module]] = []
    real = worker.build_model

    def build(*arguments: Any) -> nn.Module:
        model = real(*arguments)
        model.in_a_cycle = [model]  # as those are that hooks make
        made.append(weakref.ref(model))
        list(model.modules())[-1].register_forward_pre_hook(refuse)
        return model

    def refuse(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if module.training and len(inputs[0]) > 12:
            raise torch.OutOfMemoryError(TOO_LITTLE)

    monkeypatch.setattr(worker, "build_model", build)
    return made


def in_smaller_parts(order: Train) -> Callable[[FromWorker], Iterable[ToWorker]]:
    """As the runner does it."""
    parts = order.job.micro_batches

    def answer(message: FromWorker) -> Iterable[ToWorker]:
        nonlocal parts
        if isinstance(message, OutOfMemory):
            parts *= 2
            return [replace(order, job=replace(order.job, micro_batches=parts))]
        return always(message)

    return answer


def test_it_says_so_and_trains_in_smaller_parts(
    workplace: Workplace, tmp_path: Path, networks: list[weakref.ref[nn.Module]]
) -> None:
    """Batches of 25: halves are 13 and 12 images, quarters at most 7."""
    heard = workplace.work([workplace.order()], in_smaller_parts(workplace.order()))
    assert kinds(heard) == ["Ready", *["Began", "OutOfMemory"] * 2, "Began", "Epoch", "Epoch", "Ended"]
    assert said(OutOfMemory, heard) == [OutOfMemory("the device", f"OutOfMemoryError: {TOO_LITTLE.splitlines()[0]}")] * 2
    assert said(Began, heard) == [Began(0, "none")] * 3
    assert len(networks) == 3
    straight = Workplace.led(tmp_path / "straight")
    straight.work([straight.order(micro_batches=4)])
    assert_same(straight.trial(), workplace.trial())


@pytest.mark.parametrize("blind", [False, True], ids=["sees the study", "does not"])
def test_what_did_not_fit_is_gone_before_anybody_hears_of_it(
    workplace: Workplace, networks: list[weakref.ref[nn.Module]], request: pytest.FixtureRequest, blind: bool
) -> None:
    """The traceback would keep every frame, and so the network, its gradients and its optimiser."""
    gone: list[bool] = []

    def answer(message: FromWorker) -> Iterable[ToWorker]:
        if isinstance(message, OutOfMemory):
            gone.append(networks[-1]() is None)
        return always(message)

    if blind:
        workplace.paths.token.unlink()
    gc.collect()
    gc.disable()  # not by chance
    request.addfinalizer(gc.enable)
    workplace.work([workplace.order()], answer)
    assert gone == [True]


def test_it_goes_on_from_its_checkpoint_where_memory_runs_out_later(
    workplace: Workplace, networks: list[weakref.ref[nn.Module]]
) -> None:
    """As where another process takes the memory meanwhile."""
    half = workplace.work([workplace.order(micro_batches=4)], lambda message: [])
    assert kinds(half) == ["Ready", "Began", "Epoch"]
    heard = workplace.work([workplace.order()], in_smaller_parts(workplace.order()))
    assert kinds(heard)[:4] == ["Ready", "Began", "Epoch", "OutOfMemory"]
    assert said(Began, heard) == [Began(1, "whole")] * 3
    assert heard[-1] == Ended("finished")


@pytest.mark.parametrize(
    ("error", "heard"),
    [
        ("CUDA error: device-side assert triggered", ["Failed"]),
        ("FIND was unable to find an engine to execute this computation", ["OutOfMemory", "OutOfMemory", "Failed"]),
    ],
)
def test_an_error_of_another_kind_is_a_failure(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, error: str, heard: list[str]
) -> None:
    def build(*_: Any) -> nn.Module:
        raise RuntimeError(error)

    monkeypatch.setattr(worker, "build_model", build)
    assert kinds(workplace.work([workplace.order()], in_smaller_parts(workplace.order()))) == ["Ready", *heard]


def test_a_device_that_works_no_more_ends_the_worker_and_fails_no_trial(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA answers every later call of the process with the same error; the next trial would fail as well."""

    def build(*_: Any) -> nn.Module:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(worker, "build_model", build)
    monkeypatch.setattr(worker, "still_works", lambda device: False)
    channel = FakeChannel([workplace.order(0), workplace.order(1)], always)
    with pytest.raises(SystemExit) as ended:
        run_worker(channel, workplace.plan())
    assert ended.value.code == EXIT_BROKEN
    (broken,) = said(Broken, channel.heard)
    assert broken == Broken("RuntimeError: CUDA error: an illegal memory access was encountered")
    assert kinds(channel.heard) == ["Ready", "Broken"]


WITH_LITTLE_MEMORY = """
import json, resource, sys
import torch
from dataclasses import replace
from pathlib import Path
from nas.config import DataConfig
from nas.jobs.messages import Ended, OutOfMemory, Ready
from nas.jobs.worker import run_worker
from tests.jobs.working import FakeChannel, Workplace, always

def occupied():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmSize"))

# oneDNN may end the process where it finds no room for the code that it compiles.
torch.backends.mkldnn.set_flags(False)
workplace = Workplace.led(Path(sys.argv[1]))
small = workplace.order(1, epochs=1)  # all libraries are loaded by this one
big = workplace.order(0, blocks=4, channels=16, batch_size=1600, epochs=1)
again = workplace.order(2, epochs=1)
parts, ended = 1, 0

def answer(message):
    global parts, ended
    ended += isinstance(message, Ended)
    match message:
        case Ended() if ended == 1:
            resource.setrlimit(resource.RLIMIT_AS, (occupied() + 100 * 2**20, resource.RLIM_INFINITY))
            return [big]
        case OutOfMemory():
            parts *= 2
            return [replace(big, job=replace(big.job, micro_batches=parts))] if parts < 64 else []
        case Ended() if ended == 2:
            return [again]
    return always(message)

channel = FakeChannel([small], answer)
run_worker(channel, workplace.plan(DataConfig(dataset="digits")))
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
telling = ("number", "where", "reason", "status", "traceback")
print(json.dumps([[type(m).__name__, {k: v for k, v in vars(m).items() if k in telling}] for m in channel.heard]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's memory as Linux does")
def test_in_too_little_memory_a_smaller_part_of_the_batch_fits(tmp_path: Path) -> None:
    """For real: the system refuses more than 100 MiB; a whole batch takes twice that."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITH_LITTLE_MEMORY, str(tmp_path / "study")],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=Path(__file__).parents[2],
    )
    assert ended.returncode == 0, ended.stderr
    heard = [(name, fields) for name, fields in json.loads(ended.stdout) if name not in ("Alive", "Epoch", "Began")]
    assert [name for name, _ in heard[:3]] == ["Ready", "Ended", "OutOfMemory"], heard
    *refused, last, after = heard[2:]
    assert {name for name, _ in refused} == {"OutOfMemory"}, refused
    assert {fields["where"] for _, fields in refused} == {"the host"}
    assert 1 <= len(refused) < 6
    assert last == ("Ended", {"status": "finished"})
    assert after == ("Ended", {"status": "finished"})

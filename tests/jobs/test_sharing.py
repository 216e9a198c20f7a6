"""How many workers share a device's memory, and what becomes of images that have no room in a worker's part of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nas.config import DataConfig
from nas.data import stream
from nas.data.loader import Resident
from nas.data.stream import Streamed
from nas.jobs import placement
from nas.jobs.messages import Ended, Ready, WorkerPlan
from nas.jobs.placement import Placement, plan_workers
from nas.jobs.ray.executor import workers_a_gpu
from nas.jobs.worker import run_worker
from tests.jobs.working import FakeChannel, Workplace

PLAN = WorkerPlan(DataConfig(dataset="digits"), "cpu", 1, Path("/studies/mine"), "token")


@pytest.mark.parametrize(
    ("wanted", "sharing"),
    [(Placement(), [1, 1]), (Placement(workers_per_gpu=3), [3] * 6), (Placement(gpus=1, workers_per_gpu=2), [2, 2])],
)
def test_a_worker_knows_how_many_share_its_gpu(wanted: Placement, sharing: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "visible_gpus", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(placement, "pick_device", torch.device)
    assert [plan.sharing for plan in plan_workers(wanted, PLAN)] == sharing


@pytest.mark.parametrize(
    ("gpus", "workers"), [(0, 1), (1, 1), (0.6, 1), (0.5, 2), (0.34, 2), (0.3333, 3), (0.25, 4), (0.1, 10), (1 / 99, 99)]
)
def test_on_ray_their_shares_say_it(gpus: float, workers: int) -> None:
    assert workers_a_gpu(gpus) == workers


@pytest.mark.parametrize("kind", [Resident, Streamed])
def test_a_worker_says_where_its_images_come_from_if_not_from_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Resident]
) -> None:
    workplace = Workplace.led(tmp_path / "mine")
    asked: list[tuple[int, str, int]] = []

    def pick(nbytes: int, device: torch.device, sharing: int) -> type[Resident]:
        asked.append((nbytes, device.type, sharing))
        return kind

    monkeypatch.setattr(stream, "pick_storage", pick)
    channel = FakeChannel([workplace.order()])
    run_worker(channel, replace(workplace.plan(), sharing=3))
    ready = channel.heard[0]
    assert isinstance(ready, Ready)
    assert ready.device.endswith(", images streamed from the cache") == (kind is Streamed)
    ((nbytes, device, sharing),) = asked
    assert (nbytes % 64, device, sharing) == (0, "cpu", 3), "digits are 64 bytes each"
    assert channel.heard[-1] == Ended("finished")

"""Which workers a search has on this machine, and what each wish that it cannot fulfil is answered with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.config import DataConfig
from nas.errors import ConfigError, DeviceError, NasError
from nas.jobs import placement
from nas.jobs.messages import WorkerPlan
from nas.jobs.placement import (
    DeviceGroup,
    Placement,
    RayCluster,
    device_group,
    devices_of,
    plan_workers,
    ray_cluster,
    visible_gpus,
)
from nas.paths import StudyPaths
from tests.conftest import Done

PLAN = WorkerPlan(DataConfig(dataset="digits"), "cpu", 1, Path("/studies/mine"), "token")

Machine = Callable[..., None]


@pytest.mark.parametrize(
    ("visible", "shown", "count"),
    # Of its parts CUDA shows a process the first alone.
    [("-1", 0, 0), ("MIG-a", 1, 1), ("MIG-a,MIG-b, MIG-c", 1, 3), ("MIG-a,MIG-b", 0, 0), ("MIG-a,GPU-b", 1, 1)],
)
def test_gpus_are_those_that_this_process_may_use(machine: Machine, visible: str, shown: int, count: int) -> None:
    machine(gpus=shown, visible=visible)
    assert visible_gpus() == [f"cuda:{index}" for index in range(count)]


@pytest.mark.parametrize(
    ("have", "wanted", "devices"),
    [
        ({"gpus": 4}, Placement(), "cuda:0 cuda:1 cuda:2 cuda:3"),
        ({"gpus": 1}, Placement(), "cuda:0"),
        ({}, Placement(), "cpu"),
        ({"gpus": 1, "visible": "MIG-a,MIG-b"}, Placement(), "cuda:0 cuda:1"),
        ({"gpus": 1, "visible": "MIG-a,MIG-b"}, Placement(gpus=1), "cuda:0"),
        ({"gpus": 4}, Placement(gpus=2), "cuda:0 cuda:1"),
        ({"gpus": 4}, Placement(gpus=4), "cuda:0 cuda:1 cuda:2 cuda:3"),
        ({"gpus": 4}, Placement(gpus=0), "cpu"),
        ({"gpus": 4}, Placement(gpus=0, workers=3), "cpu cpu cpu"),
        ({"gpus": 4}, Placement(device="cpu", workers=2), "cpu cpu"),
        ({"gpus": 4}, Placement(device="cuda"), "cuda:0 cuda:1 cuda:2 cuda:3"),
        ({"gpus": 4}, Placement(device="cuda:2"), "cuda:2"),
        ({"gpus": 4}, Placement(device="cuda:2", workers_per_gpu=3), "cuda:2 cuda:2 cuda:2"),
        # Neighbours on different ones.
        ({"gpus": 4}, Placement(gpus=2, workers_per_gpu=2), "cuda:0 cuda:1 cuda:0 cuda:1"),
        ({"gpus": 1}, Placement(workers_per_gpu=1), "cuda:0"),
        ({}, Placement(workers=8), " ".join(["cpu"] * 8)),
        ({"mps": True}, Placement(), "mps"),
        ({"mps": True}, Placement(device="mps"), "mps"),
        ({"mps": True}, Placement(gpus=0), "cpu"),
        ({"mps": True}, Placement(device="cpu", workers=2), "cpu cpu"),
    ],
)
def test_placement_on_this_machine(machine: Machine, have: dict[str, Any], wanted: Placement, devices: str) -> None:
    machine(**have)
    assert devices_of(wanted) == devices.split()


@pytest.mark.parametrize(
    ("cores", "threads", "wanted", "each"),
    [
        (8, 8, Placement(), 8),
        (8, 8, Placement(workers=3), 2),
        (8, 8, Placement(workers=8), 1),
        (8, 4, Placement(workers=2), 2),  # OMP_NUM_THREADS=4
        (8, 1, Placement(workers=4), 1),
        (2, 8, Placement(workers=2), 1),  # two cores allotted, of a large machine
        (8, 8, Placement(threads=3), 3),
        (8, 1, Placement(workers=2, threads=4), 4),
    ],
)
def test_the_threads_are_shared_out(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, wanted: Placement, each: int
) -> None:
    machine(cores=cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    plans = plan_workers(wanted, PLAN)
    assert [(plan.device, plan.threads) for plan in plans] == [("cpu", each)] * (wanted.workers or 1)


def test_threads_that_are_asked_for(machine: Machine) -> None:
    machine(cores=4)
    assert device_group("cpu", 2, threads=2).threads == 2
    for ask in (lambda: plan_workers(Placement(workers=2, threads=3), PLAN), lambda: device_group("cpu", 2, threads=3).threads):
        assert refusal(ConfigError, ask) == (
            "--threads 3: 2 processes with 3 threads each would need 6 cores, and this command may use 4",
            "--threads 2 is the most; without it, the workers share the cores",
        )


@pytest.mark.parametrize(
    ("threads", "wanted", "workers"),
    [(8, Placement(), 4), (2, Placement(), 2), (1, Placement(), 1), (8, Placement(workers=1), 1), (8, Placement(threads=8), 1)],
)
def test_a_study_has_its_own_number_of_workers_where_none_is_asked_for(
    machine: Machine, threads: int, wanted: Placement, workers: int
) -> None:
    machine(cores=threads)
    plans = plan_workers(wanted, PLAN, on_cpu=4)
    assert [plan.threads for plan in plans] == [threads // workers] * workers


def test_a_number_of_workers_on_the_cpu_is_none_on_gpus(machine: Machine) -> None:
    machine(gpus=2)
    assert [plan.device for plan in plan_workers(Placement(), PLAN, on_cpu=4)] == ["cuda:0", "cuda:1"]


def test_a_plan_differs_from_worker_to_worker_in_nothing_but_its_place(machine: Machine) -> None:
    machine(gpus=4, cores=6)
    plans = plan_workers(Placement(workers_per_gpu=2), PLAN)
    assert [plan.device for plan in plans] == [f"cuda:{index}" for index in (0, 1, 2, 3)] * 2
    assert {plan.threads for plan in plans} == {1}, "fewer cores than workers still leave one each"
    assert {plan.sharing for plan in plans} == {2}
    assert {plan.sharing for plan in plan_workers(Placement(), PLAN)} == {1}
    assert {(plan.data, plan.study, plan.token) for plan in plans} == {(PLAN.data, PLAN.study, PLAN.token)}


def refusal(kind: type[NasError], ask: Callable[[], object]) -> tuple[str, str | None]:
    with pytest.raises(kind) as refused:
        ask()
    return refused.value.message, refused.value.hint


@pytest.mark.parametrize(
    ("have", "visible", "wanted", "shows", "hint"),
    [
        (0, None, 1, "no GPU", "--gpus 0 searches on the CPU"),
        (1, None, 2, "1 GPU", "--gpus 1"),
        (2, "4,6", 3, "2 GPUs (CUDA_VISIBLE_DEVICES=4,6)", "--gpus 2"),
        (0, "", 1, "no GPU (CUDA_VISIBLE_DEVICES=)", "--gpus 0 searches on the CPU"),
        (1, "MIG-a,MIG-b", 3, "2 GPUs (CUDA_VISIBLE_DEVICES=MIG-a,MIG-b)", "--gpus 2"),
    ],
)
def test_more_gpus_than_there_are(machine: Machine, have: int, visible: str | None, wanted: int, shows: str, hint: str) -> None:
    machine(gpus=have, visible=visible)
    assert refusal(DeviceError, lambda: devices_of(Placement(gpus=wanted))) == (
        f"--gpus {wanted}: torch finds {shows}",
        f"{hint}; nas doctor shows the devices",
    )


@pytest.mark.parametrize(
    "command",
    [
        ("search", "--study", "tiny", "--trials", "3"),
        ("retrain", "best", "--study", "tiny", "--epochs", "1", "--seed", "7"),
        ("retrain", "best", "--study", "tiny", "--epochs", "1", "--seeds", "7,8"),
    ],
    ids=["search", "retrain", "seeds"],
)
def test_a_command_says_which_gpus_it_leaves_out(
    nas: Callable[..., Done], study: StudyPaths, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(placement, "find_devices", lambda: {"cuda": "its driver is too old", "cpu": None})
    done = nas(*command)
    assert done.code == 0, done.err
    assert done.err.count("Warning: cuda is left out, it does not work: its driver is too old") == 1


def test_a_mig_device_is_taken_by_its_name(machine: Machine) -> None:
    machine(gpus=1, visible="MIG-a,MIG-b")
    assert devices_of(Placement(device="cuda:0")) == ["cuda:0"]
    for ask in (lambda: devices_of(Placement(device="cuda:1")), lambda: device_group("cuda:1", None)):
        message, hint = refusal(DeviceError, ask)
        assert message == "this machine has no device 'cuda:1'. Choices: auto, cuda, cuda:0, cpu."
        assert "to use this one: CUDA_VISIBLE_DEVICES=MIG-b" in str(hint)
    assert refusal(DeviceError, lambda: devices_of(Placement(device="cuda:2")))[1] == "nas doctor shows the devices"


ON_CPU, ON_GPUS = "counts workers on the CPU, but this search runs on", "counts workers on CUDA GPUs, but this search runs on"
TWO, ALL_VISIBLE = {"gpus": 2}, "without it, the search uses all visible GPUs"
EACH_GPU, ONE_WORKER = "without it, each GPU has one worker", "without it, there is one worker on the CPU"
LEAVE, ON_EACH, USE_WORKERS = (
    "leave one out: --gpus N",
    "--workers-per-gpu K puts K on each GPU; --d",
    "use --workers K on the CPU",
)


@pytest.mark.parametrize(
    ("have", "wanted", "message", "hint"),
    [
        *((have, Placement(gpus=-1), "--gpus must be at least 0, but is -1", ALL_VISIBLE) for have in (TWO, {})),
        *((have, Placement(workers_per_gpu=0), "--workers-per-gpu must be at least 1, but is 0", EACH_GPU) for have in (TWO, {})),
        *((have, Placement(workers=0), "--workers must be at least 1, but is 0", ONE_WORKER) for have in (TWO, {})),
        ({"cores": 2}, Placement(workers=3), "--workers 3 needs at least one core for each worker", "--workers 2 is the most"),
        (TWO, Placement(device="cpu", gpus=0), "--gpus 0 and --device cpu contradict each other", LEAVE),
        (TWO, Placement(device="cuda:1", gpus=2), "--gpus 2 and --device cuda:1 contradict each other", LEAVE),
        ({"gpus": 1}, Placement(workers=2), f"--workers 2 {ON_CPU} cuda:0", ON_EACH),
        ({"gpus": 4}, Placement(workers=2, gpus=2), f"--workers 2 {ON_CPU} 2 GPUs", ON_EACH),
        ({"gpus": 4}, Placement(workers=2, device="cuda:3"), f"--workers 2 {ON_CPU} cuda:3", ON_EACH),
        ({"gpus": 4}, Placement(workers=99, workers_per_gpu=2), f"--workers 99 {ON_CPU} 4 GPUs", ON_EACH),
        ({}, Placement(workers_per_gpu=2), f"--workers-per-gpu 2 {ON_GPUS} cpu", USE_WORKERS),
        (TWO, Placement(workers_per_gpu=2, gpus=0), f"--workers-per-gpu 2 {ON_GPUS} cpu", USE_WORKERS),
        (TWO, Placement(workers_per_gpu=2, device="cpu", workers=2), f"--workers-per-gpu 2 {ON_GPUS} cpu", USE_WORKERS),
        ({"mps": True}, Placement(workers=2), f"--workers 2 {ON_CPU} mps", "--device cpu --workers 2 searches on the CPU"),
        ({"mps": True}, Placement(workers_per_gpu=2), f"--workers-per-gpu 2 {ON_GPUS} mps", "leave it out: one worker uses the"),
    ],
)
def test_invalid_or_contradictory_placements_are_refused(
    machine: Machine, have: dict[str, Any], wanted: Placement, message: str, hint: str
) -> None:
    machine(**have)
    said, advice = refusal(ConfigError, lambda: devices_of(wanted))
    assert said.startswith(message)
    assert str(advice).startswith(hint)


@pytest.mark.parametrize(
    ("gpus", "cpus", "cluster"),
    [
        (None, None, RayCluster("auto", 1.0, 1.0)),
        (0.25, None, RayCluster("auto", 0.25, 1.0)),
        (0, 4, RayCluster("auto", 0, 4)),
        (2.0, 0.5, RayCluster("auto", 2.0, 0.5)),
    ],
)
def test_a_cluster_is_asked_for_by_its_address(gpus: float | None, cpus: float | None, cluster: RayCluster) -> None:
    assert ray_cluster("auto", gpus, cpus, Placement()) == cluster
    assert ray_cluster(None, None, None, Placement(workers=2)) is None


@pytest.mark.parametrize(("gpus", "cpus"), [(0.5, None), (None, 2.0), (0.0, 0.0)])
def test_ray_resources_without_ray_are_refused(gpus: float | None, cpus: float | None) -> None:
    assert refusal(ConfigError, lambda: ray_cluster(None, gpus, cpus, Placement())) == (
        "--gpus-per-worker and --cpus-per-worker are resources of a worker on a Ray cluster, and need --ray ADDRESS",
        "without a cluster: --gpus N, --workers-per-gpu K, or --workers K on the CPU",
    )


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        (Placement(gpus=0), "--gpus 0"),
        (Placement(device="cuda"), "--device cuda"),
        (Placement(workers=2), "--workers 2"),
        (Placement(threads=2), "--threads 2"),
        (Placement(workers_per_gpu=2, gpus=3), "--gpus 3 and --workers-per-gpu 2"),
    ],
)
def test_local_options_are_refused_with_ray(wanted: Placement, named: str) -> None:
    assert refusal(ConfigError, lambda: ray_cluster("local", None, None, wanted)) == (
        f"{named} is only for this machine; --ray starts as many workers as its cluster has room for",
        "--gpus-per-worker N and --cpus-per-worker N set the resources of each; 0 GPUs: the CPU",
    )


@pytest.mark.parametrize(
    ("gpus", "device", "asked", "group"),
    [
        (2, "auto", None, DeviceGroup(torch.device("cuda"))),
        (2, "auto", 2, DeviceGroup(torch.device("cuda:0"), 2)),
        (4, "cuda", 3, DeviceGroup(torch.device("cuda:0"), 3)),
        (2, "auto", 0, DeviceGroup(torch.device("cpu"))),
        (2, "cpu", 3, DeviceGroup(torch.device("cpu"), 3)),
        (0, "cpu", 0, DeviceGroup(torch.device("cpu"))),
        (0, "auto", 0, DeviceGroup(torch.device("cpu"))),
    ],
)
def test_gpus_or_processes_on_the_cpu_are_counted(
    machine: Machine, gpus: int, device: str, asked: int | None, group: DeviceGroup
) -> None:
    machine(gpus=gpus, cores=4)
    assert device_group(device, asked) == group


@pytest.mark.parametrize(
    ("gpus", "device", "asked", "kind", "message", "hint"),
    [
        (0, "auto", 2, DeviceError, "--gpus 2: torch finds no GPU", "--gpus 0 trains on the CPU; --gpus 2 --device cpu"),
        (1, "auto", 2, DeviceError, "--gpus 2: torch finds 1 GPU", "--gpus 1; "),
        (2, "cuda", 3, DeviceError, "--gpus 3: torch finds 2 GPUs", "--gpus 2; "),
        (2, "auto", -1, ConfigError, "--gpus must be at least 0, but is -1", "without it, one GPU is used"),
        (2, "cuda:1", 2, ConfigError, "--gpus 2 and --device cuda:1 contradict each other", "leave one out: --gpus N"),
        (2, "cuda", 0, ConfigError, "--gpus 0 and --device cuda contradict each other: 0 GPUs is the CPU", "leave one out"),
        (0, "cpu", 5, ConfigError, "--gpus 5 --device cpu: each process needs a core", "--gpus 4 is the most"),
    ],
)
def test_invalid_process_groups_are_refused(
    machine: Machine, gpus: int, device: str, asked: int, kind: type[NasError], message: str, hint: str
) -> None:
    machine(gpus=gpus, cores=4)
    said, advice = refusal(kind, lambda: device_group(device, asked))
    assert said.startswith(message)
    assert str(advice).startswith(hint)
    with pytest.raises(ConfigError, match="--compile and --gpus 2: a network that several processes train is not compiled"):
        device_group("cpu", 2, compiled=True)
    assert device_group("cpu", 1, compiled=True).processes == 1


@pytest.mark.parametrize(
    ("broken", "first", "gpus", "instead"),
    [
        (0, "cuda:1", 2, "1 trains on cuda:1; for more, list only working GPUs in CUDA_VISIBLE_DEVICES"),
        (2, "cuda:0", 3, "2; --gpus 3 --device cpu tries it in 3 processes there"),
    ],
)
def test_each_gpu_of_a_group_has_to_work(machine: Machine, broken: int, first: str, gpus: int, instead: str) -> None:
    machine([(6, 0) if index == broken else (8, 0) for index in range(3)])
    assert device_group("auto", 1) == DeviceGroup(torch.device(first))
    assert device_group("auto", 2) == DeviceGroup(torch.device("cuda:0"), 2) if broken == 2 else True
    message, hint = refusal(DeviceError, lambda: device_group("auto", gpus))
    assert message.startswith(f"--gpus {gpus}: torch finds 2 GPUs that work; cuda:{broken} does not work: torch ")
    assert hint == f"--gpus {instead}; nas doctor shows the devices"


@pytest.mark.parametrize(("batch", "processes", "fits"), [(4, 2, True), (5, 2, True), (3, 2, False), (1, 1, True), (5, 3, False)])
def test_each_process_has_two_images_of_a_batch(batch: int, processes: int, fits: bool) -> None:
    group = DeviceGroup(torch.device("cpu"), processes)
    if fits:
        group.require_share(batch)
    else:
        with pytest.raises(ConfigError, match=f"a batch of {batch} images is too small"):
            group.require_share(batch)


def test_choosing_the_hardest_images_needs_one_process() -> None:
    DeviceGroup(torch.device("cpu"), 1).require_share(100, 0.6)
    with pytest.raises(
        ConfigError, match=r"--gpus 2: the recipe has hardest: 0\.6, and its choice of images needs a single process"
    ):
        DeviceGroup(torch.device("cpu"), 2).require_share(100, 0.6)


def test_more_gpus_than_there_are_is_a_sentence(nas: Callable[..., Done], study: StudyPaths, machine: Machine) -> None:
    machine(gpus=0, cores=4)
    done = nas("retrain", "--study", "tiny", "--gpus", "2")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "Error: --gpus 2: torch finds no GPU\n"
        "Next:  --gpus 0 trains on the CPU; --gpus 2 --device cpu tries it in 2 processes there; nas doctor shows the devices\n"
    )

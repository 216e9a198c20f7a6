"""One training in two processes over gloo: the same batches, statistics, gradients and decisions as in one."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from nas.config import AugmentConfig, Candidate, DataConfig, TrainConfig
from nas.data.datasets import load_dataset
from nas.data.loader import Resident, TrainBatches
from nas.device import FULL_PRECISION
from nas.models.layers import BatchNorm2d
from nas.paths import TrialPaths
from nas.train.distributed import ALONE, Group, Processes, SharedBatchNorm2d, SyncBatchNorm, share_statistics
from nas.train.evaluate import Scores, tally
from nas.train.loop import fit
from tests.train.conftest import SEED, TRAIN_IMAGES, VALIDATION_IMAGES, Training, says_so_after
from tests.warm import new_process

SIZE = 2
CPU = torch.device("cpu")
BATCH = 33
"""Which two processes cannot share evenly."""
EVEN: dict[str, Any] = {"arch": {"dropout": 0.0, "stochastic_depth": 0.0}, "epochs": 2, "batch_size": BATCH}
"""Without the randomness that is each process's own."""
VARIANTS: dict[str, dict[str, Any]] = {
    "sgd": {},
    # Steps along a gradient of any size: where a ReLU bends, the last bit of it decides about the next. SiLU does not bend.
    "adamw": {"optimiser": "adamw", "lr": 0.01, "arch": {**EVEN["arch"], "activation": "silu"}},
    "sam": {"sam_rho": 0.05, "arch": {**EVEN["arch"], "activation": "silu", "se_reduction": 0}},
    "muon": {"optimiser": "muon", "arch": {**EVEN["arch"], "activation": "silu", "se_reduction": 0}},
    "mixed": {"augment": {"flip": "alternating", "mix": "mixup_or_cutmix", "cutout": 3}},
    "whitening": {"arch": {**EVEN["arch"], "stem": {"type": "whitening"}}},
    "no average": {"ema_epochs": 0.0},
    "weights of classes": {"class_balance": "loss"},
    "balanced classes": {"class_balance": "sampling"},
}


def part_of(count: int, rank: int, size: int) -> slice:
    group = Group()
    group.rank, group.size = rank, size
    return group.part(count)


@pytest.mark.parametrize(("count", "size"), [(8, 2), (9, 2), (10, 3), (11, 3), (2, 2), (7, 1)])
def test_parts_are_consecutive_cover_everything_and_differ_by_one_at_most(count: int, size: int) -> None:
    parts = [range(count)[part_of(count, rank, size)] for rank in range(size)]
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("mixing", ["none", "mixup_or_cutmix"])
@pytest.mark.parametrize("size", [2, 3])
def test_parts_of_a_batch_are_those_of_the_whole_one(mixing: str, size: int) -> None:
    data = load_dataset(DataConfig(dataset="digits"))
    resident = Resident(data.train, data.mean, data.std, CPU, np.arange(100))
    augment = AugmentConfig(crop_padding=1, flip="horizontal", cutout=3, mix=mixing)
    recipe = TrainConfig(batch_size=BATCH, augment=augment)

    def batches(part: Callable[[int], slice]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(TrainBatches(resident, recipe, SEED, 10, part).epoch(1, first_step=1))

    whole = batches(ALONE.part)
    parts = [batches(lambda count, rank=rank: part_of(count, rank, size)) for rank in range(size)]
    assert [len(images) for images, _ in whole] == [BATCH] * 2
    for step, (images, targets) in enumerate(whole):
        assert torch.equal(images, torch.cat([part[step][0] for part in parts]))
        assert torch.equal(targets, torch.cat([part[step][1] for part in parts]))


def test_alone_everything_passes_through() -> None:
    model, values = nn.Linear(2, 2), torch.ones(3)
    assert ALONE.wrap(model) is model
    assert ALONE.sum(values) is values
    assert (ALONE.any(True), ALONE.any(False)) == (True, False)
    assert ALONE.gather({"one": 1}) == [{"one": 1}]
    assert ALONE.from_leader(lambda: 7) == 7


def test_what_processes_tally_of_their_parts_makes_up_the_scores_of_the_whole() -> None:
    """Also by metrics that are no means over images."""
    data = load_dataset(DataConfig(dataset="digits"))
    model = _training().model()
    there = np.arange(0, 150)
    whole, *parts = (
        tally(model, Resident(data.train, data.mean, data.std, CPU, which), FULL_PRECISION)
        for which in (there, *(there[part_of(len(there), rank, 3)] for rank in range(3)))
    )
    scores, added = Scores.of(whole), Scores.of(torch.stack(parts).sum(0))
    assert added == pytest.approx(scores, rel=1e-6)
    assert 0 < scores.macro_f1 != scores.accuracy


def test_on_a_gpu_torchs_own_layer_shares_the_statistics() -> None:
    """Seen without one: the layers are exchanged, their weights and names stay."""
    model = nn.Sequential(nn.Conv2d(1, 3, 1), BatchNorm2d(3))
    weight, names = model[1].weight, list(model.state_dict())
    share_statistics(model, torch.device("cuda"))
    assert isinstance(model[1], SyncBatchNorm)
    assert model[1].weight is weight
    assert list(model.state_dict()) == names


class Selections(TorchDispatchMode):
    """Counts selections by a mask, for whose size the host waits."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.index.Tensor
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "selections"), [(nn.SyncBatchNorm, 3), (SyncBatchNorm, 0)])
def test_no_host_waits_for_its_gpu_in_a_normalisation(
    kind: type[nn.SyncBatchNorm], selections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's layer on the CPU, in two processes with the same images, its kernels by their formulas."""
    monkeypatch.setattr(torch._C, "_get_privateuse1_backend_name", lambda: "cpu")  # the device that torch lets pass
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: 2)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_gather", lambda out, own, *_, **__: [each.copy_(own) for each in out])
    kernels = {
        "batch_norm_stats": lambda x, eps: (x.mean((0, 2, 3)), (x.var((0, 2, 3), correction=0) + eps).rsqrt()),
        "batch_norm_gather_stats_with_counts": lambda x, mean, invstd, *_: (mean[1], invstd[1]),
        "batch_norm_elemt": lambda x, weight, bias, mean, invstd, eps: F.batch_norm(
            x, mean, invstd**-2 - eps, weight, bias, False, eps=eps
        ),
    }
    for name, kernel in kernels.items():
        monkeypatch.setattr(torch, name, kernel)
    x = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with Selections() as selected, torch.no_grad():
        found = kind(3, process_group=SimpleNamespace(_get_backend_name=lambda: "gloo")).train()(x)
    assert selected.count == selections
    assert torch.allclose(found, nn.BatchNorm2d(3).train()(x), atol=1e-5)


def _training() -> Training:
    from nas.config import ArchConfig, StageConfig, TrainConfig

    arch = ArchConfig(
        stages=(StageConfig(blocks=1, channels=8), StageConfig(blocks=1, channels=12)),
        dropout=0.2,
        stochastic_depth=0.3,
        se_reduction=4,
    )
    augment = AugmentConfig(crop_padding=1, pad_mode="zero", flip="none")
    train = TrainConfig(epochs=3, batch_size=32, lr=0.1, ema_epochs=0.5, label_smoothing=0.1, augment=augment)
    return Training(load_dataset(DataConfig(dataset="digits")), Candidate(arch=arch, train=train))


def _run(training: Training, group: Group, folder: Path, **more: Any) -> dict[str, Any]:
    """What of a training is to be compared."""
    recipe, data = training.candidate.train, training.dataset
    there = np.arange(TRAIN_IMAGES, TRAIN_IMAGES + VALIDATION_IMAGES + 1)
    model = training.model()
    result = fit(
        model,
        TrainBatches(training.resident(0, TRAIN_IMAGES), recipe, SEED, 10, group.part),
        Resident(data.train, data.mean, data.std, CPU, there[group.part(len(there))]),
        recipe,
        more.pop("on_epoch", lambda metrics: True),
        paths=TrialPaths(folder),
        precision=training.precision,
        seed=SEED,
        identity="this one",
        group=group,
        **more,
    )
    curve = [{**vars(metrics), "seconds": 0.0, "images_per_second": 0.0} for metrics in result.curve]
    weights = {"raw": dict(model.state_dict()), "averaged": dict(result.model.state_dict())}
    return {"status": result.status, "curve": curve, "weights": weights, "random": torch.rand(3)}


def _norms(group: Processes) -> dict[str, Any]:
    """A BatchNorm's part of a batch forward, back, and forward in evaluation."""
    torch.manual_seed(3)
    images, wanted = torch.randn(7, 3, 4, 5) * 3 + 100, torch.randn(7, 3, 4, 5)
    norm = BatchNorm2d(3, momentum=0.3)
    nn.init.uniform_(norm.weight)
    share_statistics(norm, CPU)
    assert isinstance(norm, SharedBatchNorm2d)
    part = group.part(7)
    x = images[part].requires_grad_()
    y = norm(x)
    (y * wanted[part]).sum().backward()
    assert x.grad is not None
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    statistics = {name: value.clone() for name, value in norm.state_dict().items()}
    evaluated = norm.eval()(images)
    return {
        "y": y.detach(),
        "x": x.grad,
        "weight": norm.weight.grad,
        "bias": norm.bias.grad,
        "statistics": statistics,
        "evaluated": evaluated.detach(),
    }


def _process(rank: int, folder: str) -> None:
    """Everything that two processes do for these tests, so that they start once."""
    torch.set_num_threads(1)
    root, training = Path(folder), _training()
    group = Processes(CPU, rank, SIZE, f"file://{root / 'meeting'}")
    seen: dict[str, Any] = {"norms": _norms(group)}
    for name, changes in VARIANTS.items():
        seen[name] = _run(training.changed(**{**EVEN, **changes}), group, root / name)
    halved = training.changed(**{**EVEN, "batch_size": 34})
    seen["parts"] = _run(halved, group, root / "parts", micro_batches=4)
    seen["whole"] = _run(training, group, root / "whole")
    # One of them alone is told to suspend; another time, to stop.
    seen["cut"] = _run(training, group, root / "cut", should_suspend=says_so_after(8 if rank else 1000))
    seen["resumed"] = _run(training, group, root / "cut")
    seen["stopped"] = _run(training, group, root / "stopped", on_epoch=lambda metrics: rank == 0 or metrics.epoch < 2)
    _run(training, group, root / "fewer", should_suspend=says_so_after(8))
    if rank:
        training.dataset = replace(training.dataset, mean=(math.nan,))
    seen["diverged"] = _run(training, group, root / "diverged")
    torch.save(seen, root / f"{rank}.pt")
    group.close()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of two processes, and what each of them saw."""
    folder = tmp_path_factory.mktemp("two")
    processes = [new_process(_process, rank, str(folder)) for rank in range(SIZE)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(280)
    assert [process.exitcode for process in processes] == [0] * SIZE
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(SIZE)]


Both = tuple[Path, list[dict[str, Any]]]


def assert_near(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Up to float32's rounding, which some tens of steps have magnified."""
    assert one["status"] == other["status"] == "finished"
    for which in ("raw", "averaged"):
        for name, value in one["weights"][which].items():
            torch.testing.assert_close(value, other["weights"][which][name], rtol=1e-3, atol=2e-5, msg=f"{which} {name}")
    for mine, theirs in zip(one["curve"], other["curve"], strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
        assert mine["ema_val_loss"] == pytest.approx(theirs["ema_val_loss"], rel=1e-4)
        assert mine["ema_val_macro_f1"] == pytest.approx(theirs["ema_val_macro_f1"], abs=0.02)
        assert mine["train_accuracy"] == pytest.approx(theirs["train_accuracy"], abs=0.02)
        assert (mine["epoch"], mine["lr"]) == (theirs["epoch"], theirs["lr"])


def test_batch_norm_over_both_is_that_of_the_whole_batch(both: Both) -> None:
    seen = [rank["norms"] for rank in both[1]]
    torch.manual_seed(3)
    images, wanted = (torch.randn(7, 3, 4, 5) * 3 + 100).requires_grad_(), torch.randn(7, 3, 4, 5)
    norm = BatchNorm2d(3, momentum=0.3)
    nn.init.uniform_(norm.weight)
    y = norm(images)
    (y * wanted).sum().backward()
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(torch.cat([rank["y"] for rank in seen]), y.detach(), **close)
    torch.testing.assert_close(torch.cat([rank["x"] for rank in seen]), images.grad, **close)
    torch.testing.assert_close(seen[0]["weight"] + seen[1]["weight"], norm.weight.grad, **close)
    torch.testing.assert_close(seen[0]["bias"] + seen[1]["bias"], norm.bias.grad, **close)
    for rank in seen:
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(rank["statistics"][name], value, rtol=1e-5, atol=1e-5, msg=name)
    norm.eval()
    torch.testing.assert_close(seen[1]["evaluated"], norm(images).detach(), **close)


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_train_what_one_would(both: Both, tmp_path: Path, variant: str, equal_states: Callable[[Any, Any], bool]) -> None:
    first, second = (rank[variant] for rank in both[1])
    assert equal_states(first["weights"], second["weights"]), "bit by bit, or they would drift apart"
    assert first["curve"] == second["curve"]
    alone = _run(_training().changed(**{**EVEN, **VARIANTS[variant]}), ALONE, tmp_path)
    assert_near(first, alone)


def test_shares_that_go_through_in_parts_are_exchanged_once(
    both: Both, tmp_path: Path, equal_states: Callable[[Any, Any], bool]
) -> None:
    """Of a batch of 34, 9 and 8 images of each process at a time. One process has other images together in its BatchNorm, so that
    it learns about the same alone."""
    first, second = (rank["parts"] for rank in both[1])
    assert equal_states(first["weights"], second["weights"])
    alone = _run(_training().changed(**{**EVEN, "batch_size": 34}), ALONE, tmp_path, micro_batches=2)
    assert first["status"] == alone["status"] == "finished"
    for mine, theirs in zip(first["curve"], alone["curve"], strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.05)


def test_cut_off_by_one_of_them_both_go_on_exactly(both: Both, equal_states: Callable[[Any, Any], bool]) -> None:
    """With dropout and stochastic depth, of which each process has its own random numbers."""
    for rank in both[1]:
        assert rank["cut"]["status"] == "suspended"
        assert len(rank["cut"]["curve"]) == 1, "in the second of three epochs of six steps"
        assert rank["resumed"]["status"] == "finished"
        assert equal_states(rank["resumed"], rank["whole"]), "weights, averages, curve and the next random numbers"
    one, other = (rank["whole"]["random"] for rank in both[1])
    assert not torch.equal(one, other), "each drops other units"
    saved = torch.load(both[0] / "whole" / "checkpoint.pt", weights_only=True)
    assert len(saved["processes"]) == SIZE


def test_what_one_of_them_is_told_both_do(both: Both) -> None:
    assert [(rank["stopped"]["status"], len(rank["stopped"]["curve"])) for rank in both[1]] == [("stopped", 2)] * SIZE


def test_where_one_diverges_both_do(both: Both) -> None:
    assert [(rank["diverged"]["status"], rank["diverged"]["curve"]) for rank in both[1]] == [("diverged", [])] * SIZE


def test_what_two_began_one_may_end(both: Both, tmp_path: Path) -> None:
    """Over other processes it goes on with the same batches, if not exactly."""
    ended = _run(_training(), ALONE, both[0] / "fewer")
    whole = both[1][0]["whole"]
    assert ended["status"] == "finished"
    assert ended["curve"][0] == whole["curve"][0]
    assert [line["lr"] for line in ended["curve"]] == [line["lr"] for line in whole["curve"]]
    assert ended["curve"][1]["train_loss"] == pytest.approx(whole["curve"][1]["train_loss"], rel=0.2)

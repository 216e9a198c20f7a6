"""How latencies are measured: by a clock that the test turns, and by the real one."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nas.budget.latency as latency_module
import nas.device
from nas.budget import Budget
from nas.budget.latency import (
    LEAST_RUNS,
    LEAST_SECONDS,
    MOST_SECONDS,
    RUNTIMES,
    WARM_UP_RUNS,
    latency_key,
    measure_latency,
    median_seconds,
)
from nas.config import BudgetConfig, ImageShape, LatencyConfig
from nas.errors import BudgetError, DeviceError
from nas.models import ResNet, build_model
from tests.reported import arch_of

SHAPE = ImageShape(channels=3, size=16, classes=10)
SMALL, LARGE, HUGE = arch_of(8, 16), arch_of(96, 192, blocks=3), arch_of(*[4096] * 4, blocks=64)


class Clock:
    """Turned by the runs themselves."""

    def __init__(self, *seconds: float) -> None:
        self.now, self.runs, self.seconds = 0.0, 0, seconds

    def __call__(self) -> float:
        return self.now

    def run(self) -> None:
        self.now += self.seconds[min(self.runs, len(self.seconds) - 1)]
        self.runs += 1


def timed(*seconds: float) -> tuple[float, int]:
    """The median, and runs after the warm-up."""
    clock = Clock(*seconds)
    return median_seconds(clock.run, clock), clock.runs - WARM_UP_RUNS


def test_steady_runs_are_few_and_short_ones_are_repeated_for_a_while() -> None:
    assert timed(0.05) == (pytest.approx(0.05), LEAST_RUNS)
    assert timed(*(0.9,) * WARM_UP_RUNS, 0.02)[0] == pytest.approx(0.02), "the warm-up does not count"
    assert timed(*((0.01,) * 9 + (0.2,)) * 20)[0] == pytest.approx(0.01), "nor does a rare hiccup"
    median, runs = timed(0.0001)
    assert median == pytest.approx(0.0001)
    assert LEAST_SECONDS <= runs * 0.0001 < 2 * LEAST_SECONDS
    assert timed(*(0.5, 1.5) * 50)[1] <= MOST_SECONDS / 0.5
    clock = Clock(60.0)
    assert median_seconds(clock.run, clock) == 60.0
    assert clock.runs == 2, "one to warm up, and one that outlasts the time there is"


def test_unsteady_runs_are_repeated_until_their_median_is_sure() -> None:
    steady = timed(*(0.01,) * 1000)[1]
    unsteady = timed(*(0.007, 0.013, 0.009, 0.011) * 250)
    assert unsteady[1] > 2 * steady
    assert unsteady[0] == pytest.approx(0.01, rel=0.15)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """How each forward pass found the world."""
    passes: list[dict[str, object]] = []
    forward = ResNet.forward

    def spy(self: ResNet, images: torch.Tensor) -> torch.Tensor:
        weight = next(it.weight for it in self.modules() if isinstance(it, nn.Conv2d) and it.kernel_size == (3, 3))
        passes.append(
            {
                "shape": tuple(images.shape),
                "type": images.dtype,
                "training": self.training,
                "inference": torch.is_inference_mode_enabled(),
                "threads": torch.get_num_threads(),
                "channels_last": images.is_contiguous(memory_format=torch.channels_last)
                and weight.is_contiguous(memory_format=torch.channels_last),
            }
        )
        return forward(self, images)

    monkeypatch.setattr(ResNet, "forward", spy)
    monkeypatch.setattr(latency_module, "peak_memory", lambda arch, shape: 0)
    return passes


def test_torch_runs_as_the_network_will_run(seen: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine, too, it comes to its runs, and to no more.
    monkeypatch.setattr(latency_module, "MOST_SECONDS", 300.0)
    monkeypatch.setattr(latency_module, "CERTAINTY", float("inf"))
    before = torch.get_num_threads()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    ms = measure_latency(SMALL, SHAPE, LatencyConfig(max_ms=5, runtime="torch", threads=before + 1, batch=4))
    assert ms > 0
    assert len(seen) >= WARM_UP_RUNS + LEAST_RUNS
    wanted = {"shape": (4, 3, 16, 16), "type": torch.float32, "training": False, "inference": True}
    wanted |= {"threads": before + 1, "channels_last": True}
    assert all(one == wanted for one in seen)
    assert torch.get_num_threads() == before
    assert not torch.is_inference_mode_enabled()
    assert torch.equal(torch.rand(3), expected)


def test_threads_are_restored_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ResNet, images: torch.Tensor) -> torch.Tensor:
        raise ValueError("broken")

    monkeypatch.setattr(latency_module, "peak_memory", lambda arch, shape: 0)
    monkeypatch.setattr(ResNet, "forward", fail)
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="broken"):
        measure_latency(SMALL, SHAPE, LatencyConfig(max_ms=5, runtime="torch", threads=before + 1))
    assert torch.get_num_threads() == before


def test_a_larger_network_takes_longer() -> None:
    small, large = (measure_latency(arch, SHAPE, LatencyConfig(max_ms=5, runtime="torch")) for arch in (SMALL, LARGE))
    assert large > 2 * small


def test_a_network_too_large_for_this_machine_is_never_allocated() -> None:
    assert measure_latency(HUGE, SHAPE, LatencyConfig(max_ms=5, runtime="torch")) == float("inf")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: out of memory"),  # its own class since torch 2.8
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("Invalid buffer size: 24.00 GiB"),
    ],
    ids=str,
)
def test_a_network_too_large_for_its_device_takes_for_ever(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    @contextmanager
    def full(*arguments: object) -> Iterator[object]:
        raise error
        yield

    released: list[torch.device] = []
    monkeypatch.setitem(RUNTIMES, "torch", full)
    monkeypatch.setattr(latency_module, "release_memory", released.append)
    assert measure_latency(SMALL, SHAPE, LatencyConfig(max_ms=5, runtime="torch", device="cuda:1")) == float("inf")
    assert released == [torch.device("cuda:1")], "for the workers there"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "this machine has no device 'cuda:3'. Choices: cpu."),
        ({"cuda:3": "it has no kernels"}, "device 'cuda:3' does not work: it has no kernels. Choices: cpu."),
    ],
)
def test_device_that_cannot_be_used_is_refused_with_those_that_can(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, str | None], said: str
) -> None:
    monkeypatch.setattr(nas.device, "find_devices", lambda: {**found, "cpu": None})
    with pytest.raises(DeviceError) as refused:
        measure_latency(SMALL, SHAPE, LatencyConfig(max_ms=5, runtime="torch", device="cuda:3"))
    assert refused.value.message == f"the latency is limited on device 'cuda:3': {said}"
    assert "budget.latency.device" in str(refused.value.hint)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_waited_for() -> None:
    small, large = (
        measure_latency(arch, SHAPE, LatencyConfig(max_ms=5, runtime="torch", device="cuda", batch=256))
        for arch in (SMALL, LARGE)
    )
    assert large > small > 0


PRINTS_SIZE = "import sys; data = open(sys.argv[1], 'rb').read(); print('loaded 7 layers\\nmedian', len(data) / 1000, 'ms')"


def by_command(program: str, **more: Any) -> LatencyConfig:
    return LatencyConfig(max_ms=5, command=shlex.join([sys.executable, "-c", program, "{model}"]), **more)


def test_a_command_measures_the_exported_file_and_is_not_asked_twice(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    latency, file = by_command(PRINTS_SIZE), tmp_path / "latencies.json"
    small, large = (Budget(BudgetConfig(latency=latency), SHAPE, file).latency(arch) for arch in (SMALL, LARGE))
    assert 5 < small < large / 50, "kilobytes of weights"
    assert latency_key(SMALL, SHAPE, LatencyConfig(max_ms=5, command="./bench {model}")) == "b232da09151341b9", (
        "as before there were formats"
    )
    again = Budget(BudgetConfig(latency=latency.model_copy(update={"timeout": 1e-9})), SHAPE, file)
    assert not again.needs_idle_machine(SMALL)
    assert again.latency(SMALL) == small
    assert again.check(SMALL).sentence(again.limits).startswith(f"{small:,.3f} ms by {sys.executable} -c ")


def test_a_command_gets_a_file_in_eight_bits_if_its_format_says_so(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    zero = LARGE.model_copy(update={"zero_init": True})  # weights of 0, whose scale would be 0
    for arch in (LARGE, zero):
        kept = tmp_path / f"{arch.zero_init}.onnx"
        latency = by_command(f"import shutil, sys; shutil.copy(sys.argv[1], {str(kept)!r}); {PRINTS_SIZE}", format="onnx-int8")
        assert measure_latency(arch, SHAPE, latency) < 0.3 * measure_latency(arch, SHAPE, by_command(PRINTS_SIZE))
        graph = onnx.load(kept).graph
        quantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        products = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
        assert [name for node in products for name in node.input if name not in quantised] == []
        (image,) = graph.input
        assert (image.name, [one.dim_value for one in image.type.tensor_type.shape.dim]) == ("images", [1, 3, 16, 16])
    assert latency_key(LARGE, SHAPE, latency) != latency_key(LARGE, SHAPE, latency.model_copy(update={"format": "onnx"}))
    assert latency.setting().endswith(" in int8, batch 1")


@pytest.mark.parametrize(
    ("latency", "said"),
    [
        (by_command("print('all is well')"), "prints no number of milliseconds above 0 in its last line, which is 'all is well'"),
        (by_command("print('-3 ms')"), "prints no number of milliseconds above 0 in its last line, which is '-3 ms'"),
        (by_command("pass"), "prints no number of milliseconds above 0 in its last line, which is ''"),
        (by_command("import sys; sys.exit('no board at /dev/ttyUSB0')"), "ended with exit status 1: no board at /dev/ttyUSB0"),
        (by_command("import time; time.sleep(60)", timeout=0.2), "gave no answer within 0.2 seconds"),
        (LatencyConfig(max_ms=5, command="./no-bench {model}"), "cannot be run: ./no-bench: No such file or directory"),
    ],
)
def test_a_command_that_gives_no_latency_is_named_with_what_it_did(
    latency: LatencyConfig, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, package, nn)  # any module
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: None)
    with pytest.raises(BudgetError) as refused:
        measure_latency(SMALL, SHAPE, latency)
    assert refused.value.message == f"the command that measures the latency, {latency.command!r}, {said}"
    assert "nas export --format onnx" in str(refused.value.hint)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_missing_package_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        if package != missing:
            monkeypatch.setitem(sys.modules, package, nn)  # any module
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(BudgetError) as refused:
        measure_latency(SMALL, SHAPE, LatencyConfig(max_ms=5, runtime="onnxruntime"))
    assert f"needs {missing}, which is not installed here" in refused.value.message
    assert refused.value.hint == "pip install 'nas-under-budget[onnx]', or take runtime torch"


def test_onnxruntime_runs_the_exported_network_which_says_the_same_as_torch(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    for needed in ("onnx", "onnxscript"):
        pytest.importorskip(needed)
    runs: list[Any] = []  # the session of each

    class Watched(onnxruntime.InferenceSession):  # type: ignore[misc, name-defined]
        def run_with_iobinding(self, *arguments: object) -> None:
            runs.append(self)
            super().run_with_iobinding(*arguments)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Watched)
    arch = SMALL.model_copy(update={"se_reduction": 4, "pool": "max", "downsample": "avgpool"})
    torch.manual_seed(3)
    ms = measure_latency(arch, SHAPE, LatencyConfig(max_ms=5, runtime="onnxruntime", threads=1, batch=2))
    assert 0 < ms < 1000
    assert len(runs) >= WARM_UP_RUNS + LEAST_RUNS
    (image,) = runs[0].get_inputs()
    assert (image.shape, runs[0].get_session_options().intra_op_num_threads) == ([2, 3, 16, 16], 1)
    assert runs[0].get_providers() == ["CPUExecutionProvider"]
    assert capfd.readouterr().out == ""
    torch.manual_seed(3)
    model, images = build_model(arch, SHAPE).eval(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(images)
    got = torch.from_numpy(runs[0].run(None, {image.name: images.numpy()})[0])
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_onnxruntime_without_cuda_is_refused_with_the_package_that_has_it() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(DeviceError) as refused:
        measure_latency(SMALL, SHAPE, LatencyConfig(max_ms=5, runtime="onnxruntime", device="cuda"))
    assert "where the installed onnxruntime cannot run. It has: " in refused.value.message
    assert "pip install onnxruntime-gpu" in str(refused.value.hint)

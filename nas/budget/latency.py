"""Times a network's forward pass as it will run: the median of as many runs as its precision needs.

`RUNTIMES` holds the runtimes. To add one: a function with the signature of `_torch`, an entry there, and its name in
`nas.config.RuntimeName`. Measurements are stored, so that a network is timed once.
"""

import hashlib
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from nas.budget.counts import count_params, peak_memory
from nas.budget.quantise import prepare_int8, write_int8
from nas.config import ArchConfig, Frozen, ImageShape, LatencyConfig, first_problem
from nas.device import cpu_threads, out_of_memory, pick_device, release_memory, wait_for
from nas.errors import BudgetError, DeviceError
from nas.models import ResNet, build_model

WARM_UP_RUNS = 3
LEAST_RUNS = 10
LEAST_SECONDS = 0.1
MOST_SECONDS = 3.0  # longest measurement, except that one run is always timed
CERTAINTY = 0.01  # largest standard error of the median, as a share of it

# How often the weights lie in memory at most: torch's, the exported graph's before and after it is optimised, the session's.
_COPIES = {"torch": 1, "onnxruntime": 4}

Run = Callable[[], object]
Write = Callable[[Path, bytes], None]


def measure_latency(arch: ArchConfig, shape: ImageShape, latency: LatencyConfig) -> float:
    """Milliseconds of one forward pass; infinite if the network does not fit into half of this machine's memory, or into its
    device's.

    Raises DeviceError for a device, and BudgetError for a runtime, that this machine does not have, and for a command that fails.
    """
    needs = _COPIES.get(latency.runtime or "", 4) * 4 * count_params(arch, shape) + latency.batch * peak_memory(arch, shape)
    if needs > _host_memory() / 2:
        return math.inf
    if latency.command is not None:
        return _by_command(arch, shape, latency.command, latency)
    assert latency.runtime is not None
    try:
        with RUNTIMES[latency.runtime](arch, shape, latency) as run:
            ms = 1000 * median_seconds(run)
    except Exception as error:
        if out_of_memory(error) is None:
            raise
        ms = math.inf
    if latency.runtime == "torch" and latency.device != "cpu":  # workers need that memory, too
        release_memory(torch.device(latency.device))
    return ms


def median_seconds(run: Run, clock: Callable[[], float] = time.perf_counter) -> float:
    """After a warm-up; stops when the median is precise enough, or when the time is over."""
    begin = clock()
    for _ in range(WARM_UP_RUNS):
        run()
        if clock() - begin > MOST_SECONDS:
            break
    times: list[float] = []
    next_look = LEAST_RUNS
    begin = clock()
    while (now := clock()) - begin < MOST_SECONDS or not times:
        if len(times) >= next_look and now - begin >= LEAST_SECONDS:
            if _is_certain(times):
                break
            next_look = 3 * len(times) // 2
        run()
        times.append(clock() - now)
    return statistics.median(times)


def _is_certain(times: list[float]) -> bool:
    low, median, high = statistics.quantiles(times, n=4)
    # Of a normal distribution: the median's error is 1.253 deviations / √n, and the quartiles are 1.349 deviations apart.
    return 1.253 / 1.349 * (high - low) / math.sqrt(len(times)) <= CERTAINTY * median


def _host_memory() -> float:
    """Bytes; infinite if the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


# --------------------------------------------------------------------------------------------------- what runs a network


def _network(arch: ArchConfig, shape: ImageShape, batch: int) -> tuple[ResNet, torch.Tensor]:
    """With images (N, C, H, W) for it; keeps torch's random state."""
    with torch.random.fork_rng(devices=[]):
        return build_model(arch, shape).eval(), torch.randn(batch, shape.channels, shape.size, shape.size)


@contextmanager
def _torch(arch: ArchConfig, shape: ImageShape, latency: LatencyConfig) -> Iterator[Run]:
    device = _device(latency.device)
    model, images = _network(arch, shape, latency.batch)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = images.to(device, memory_format=torch.channels_last)

    def run() -> None:
        model(images)
        wait_for(device)

    with cpu_threads(latency.threads), torch.inference_mode():
        yield run


@contextmanager
def _onnxruntime(arch: ArchConfig, shape: ImageShape, latency: LatencyConfig) -> Iterator[Run]:
    """Without the time to copy images to the device and logits back, as for torch."""
    onnxruntime = _import_onnxruntime()
    kind, _, index = latency.device.partition(":")
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[kind]
    if provider not in onnxruntime.get_available_providers():
        raise _no_provider(onnxruntime, latency.device)
    model, images = _network(arch, shape, latency.batch)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = latency.threads, 1
    options.log_severity_level = 3  # errors alone
    number = int(index or 0)
    with tempfile.TemporaryDirectory(prefix="nas-latency-") as folder:
        file = Path(folder) / "network.onnx"  # a file, because a message of the format holds 2 GB at most
        torch.onnx.export(model, (images,), file, dynamo=True, verbose=False)
        chosen = [(provider, {"device_id": number})] if kind == "cuda" else [provider]
        session = onnxruntime.InferenceSession(str(file), options, providers=chosen)
    if session.get_providers()[0] != provider:  # it falls back to the CPU if CUDA's libraries cannot be loaded
        raise _no_provider(onnxruntime, latency.device)
    binding = session.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy(images.numpy(), kind, number)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, value)
    binding.bind_output(session.get_outputs()[0].name, kind, number)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    yield run


RUNTIMES: dict[str, Callable[[ArchConfig, ImageShape, LatencyConfig], AbstractContextManager[Run]]] = {
    "torch": _torch,
    "onnxruntime": _onnxruntime,
}


_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def _by_command(arch: ArchConfig, shape: ImageShape, command: str, latency: LatencyConfig) -> float:
    """Milliseconds that the user's program prints: the last number of its last line. Raises BudgetError."""
    _import_onnxruntime()
    with tempfile.TemporaryDirectory(prefix="nas-latency-") as folder:
        file = Path(folder) / "network.onnx"
        model, images = _network(arch, shape, latency.batch)
        torch.onnx.export(model, (images,), file, dynamo=True, verbose=False, external_data=False, input_names=["images"])
        if latency.format == "onnx-int8":
            write_int8(prepare_int8(file), file, [images.numpy()])
        words = [word.replace("{model}", str(file)) for word in shlex.split(command)]
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=latency.timeout
            )
        except subprocess.TimeoutExpired:
            raise _failed(latency, f"gave no answer within {latency.timeout:g} seconds") from None
        except OSError as error:
            raise _failed(latency, f"cannot be run: {words[0]}: {error.strerror}") from None
    if done.returncode != 0:
        why = done.stderr.strip().splitlines() or ["it says nothing on standard error"]
        raise _failed(latency, f"ended with exit status {done.returncode}: {why[-1]}")
    last = (done.stdout.strip().splitlines() or [""])[-1]
    number = float(_NUMBER.findall(last)[-1]) if _NUMBER.search(last) else math.nan
    if not 0 < number < math.inf:
        raise _failed(latency, f"prints no number of milliseconds above 0 in its last line, which is {last!r}")
    return number


def _failed(latency: LatencyConfig, how: str) -> BudgetError:
    return BudgetError(
        f"the command that measures the latency, {latency.command!r}, {how}",
        hint=f"try it by hand on a file of nas export --format {latency.format}; budget.latency has its command and its timeout "
        "in seconds",
    )


def _device(name: str) -> torch.device:
    try:
        return pick_device(name, offer_auto=False)
    except DeviceError as error:
        raise DeviceError(
            f"the latency is limited on device {name!r}: {error.message}",
            hint="set budget.latency.device, or search where that device is; nas doctor shows the devices",
        ) from None


def _import_onnxruntime() -> Any:
    try:
        import onnx  # noqa: F401  (torch's exporter needs it, and onnxscript)
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BudgetError(
            f"the latency is measured on an ONNX file, which needs {error.name}, which is not installed here",
            hint="pip install 'nas-under-budget[onnx]', or take runtime torch",
        ) from None
    return onnxruntime


def _no_provider(onnxruntime: Any, device: str) -> DeviceError:
    have = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    return DeviceError(
        f"the latency is limited on device {device!r}, where the installed onnxruntime cannot run. It has: {', '.join(have)}.",
        hint="pip install onnxruntime-gpu in place of onnxruntime, or take device cpu or runtime torch",
    )


# ---------------------------------------------------------------------------------------------- what was measured before


# Raise this when what is timed changes, so that older measurements are not used.
_VERSION = 1
# Fields of a network that change nothing at prediction.
_TRAINING_ONLY = ("dropout", "dropout_place", "stochastic_depth", "zero_init", "init", "norm_momentum")


class Measured(Frozen):
    ms: float | None  # None in older files: too large to run
    architecture: str
    latency: str  # how it was timed, in words


_FILE = TypeAdapter(dict[str, Measured])


def latency_key(arch: ArchConfig, shape: ImageShape, latency: LatencyConfig) -> str:
    """Equal for networks that predict by the same operations and are timed in the same way; the limit does not matter."""
    content = [
        _VERSION,
        arch.canonical().model_dump(mode="json", exclude_defaults=True, exclude=set(_TRAINING_ONLY)),
        shape.model_dump(),
        latency.model_dump(
            exclude={"max_ms", "timeout"} | ({"format"} if latency.format == "onnx" else set()), exclude_none=True
        ),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class MeasuredLatencies:
    """Latencies of networks for images of one shape, timed in one way."""

    def __init__(self, shape: ImageShape, latency: LatencyConfig, file: Path | None, write: Write) -> None:
        """Raises BudgetError if `file` cannot be read."""
        self._shape, self._latency, self._file, self._write = shape, latency, file, write
        self._found: dict[str, Measured] = {}
        self._too_large: set[str] = set()  # for this process only: another program may have used the memory
        if file is not None and file.is_file():
            try:
                found = _FILE.validate_json(file.read_bytes())
                self._found = {key: one for key, one in found.items() if one.ms is not None}
            except (ValidationError, OSError) as error:
                problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
                raise BudgetError(
                    f"{file}, the file of measured latencies, cannot be read: {problem}",
                    hint="delete it; networks that are drawn again will be timed again",
                ) from None

    def get(self, arch: ArchConfig) -> float | None:
        """Milliseconds, infinite for a network that is too large to run; None if it was not measured."""
        key = latency_key(arch, self._shape, self._latency)
        if key in self._too_large:
            return math.inf
        return self._found[key].ms if key in self._found else None

    def add(self, arch: ArchConfig, ms: float) -> None:
        """Before a study has its folder, measurements stay in memory and are written with the next one. An infinite `ms`, of a
        network that is too large to run, is not written."""
        key = latency_key(arch, self._shape, self._latency)
        if math.isinf(ms):
            self._too_large.add(key)
        else:
            self._found[key] = Measured(ms=ms, architecture=arch.one_line(), latency=self._latency.setting())
        if self._file is not None and self._file.parent.is_dir():
            self._write(self._file, _FILE.dump_json(self._found, indent=1))

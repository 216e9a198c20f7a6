"""Whether this installation does its work on each device of this machine, for `nas doctor --check`.

Every step is a command in a process of its own, with folders of its own: one that crashes takes nothing along, and nothing stays
behind. To add one: a function that returns what it found or raises `_Wrong`, and an entry in STEPS.
"""

import csv
import getpass
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import nas
from nas.config import ArchConfig, ImageShape, StageConfig, TrainConfig
from nas.cores import usable_cores
from nas.data.images import ImageSet
from nas.data.loader import Resident, TrainBatches
from nas.device import broken_among, find_devices, pick_precision, tune_process, wait_for
from nas.files import write_whole
from nas.models import build_model
from nas.report.machine import Health
from nas.report.tables import Table
from nas.train.evaluate import autocast
from nas.train.optimiser import make_optimiser
from nas.train.pace import measure_pace

SECONDS = 120.0  # for all steps on a device
TIMED_SECONDS = 2.0  # for each of the two loops whose speed is compared
TOLERANCE = 1e-3  # between a class's probability there and on the CPU
LEAST_SHARE = 1 / 3  # of a bare loop's images a second
REPORT = Path("nas-doctor-check.json")
LOG_CHARACTERS = 4000  # of what a command that failed said at its end

SPACE = """\
version: 1
budget: {params: 20k}
arch: {stages: 2, block: basic, stage: {blocks: 1, channels: {type: int, low: 4, high: 12}}}
train: {epochs: 1, batch_size: 64, lr: 0.1, augment: {crop_padding: 1, flip: none}}
"""
HUNGRY_SPACE = SPACE.replace("arch:", "blocks: [hungry.py:Hungry]\narch:").replace("basic", "Hungry")
# More than any machine has, so that it is refused at once and nobody else's memory is taken.
HUNGRY_BLOCK = """\
import torch

from nas.models.blocks import BasicBlock


class Hungry(BasicBlock):
    def forward(self, x):
        if self.training and len(x) > 40:
            torch.empty(2**50, dtype=torch.uint8, device=x.device)
        return super().forward(x)
"""


@dataclass(frozen=True)
class Row:
    device: str
    step: str
    passed: bool | None  # None: not tried
    seconds: float
    found: str
    advice: str | None = None  # what to do, where it failed
    log: str = ""  # the end of what its command said, where it failed

    @property
    def result(self) -> str:
        return {True: "ok", False: "FAILED", None: "skipped"}[self.passed]


class _Wrong(Exception):
    """What is not as it should be."""


class _NotHere(Exception):
    """Why this device cannot be asked for it."""


class _Bench:
    """Where the steps of one device run."""

    def __init__(self, device: str, folder: Path) -> None:
        self.device, self.folder = device, folder
        self.ends = time.monotonic() + SECONDS
        self.log = ""
        for name, text in (("space.yaml", SPACE), ("hungry.yaml", HUNGRY_SPACE), ("hungry.py", HUNGRY_BLOCK)):
            (folder / name).write_text(text)
        self._environment = {key: value for key, value in os.environ.items() if key != "NAS_STORAGE"}
        self._environment |= {"NAS_STUDIES": str(folder / "studies"), "NAS_CACHE": str(folder / "cache")}
        package = Path(nas.__file__).parents[1]
        if not {"site-packages", "dist-packages"} & set(package.parts):  # a checkout, perhaps in the working folder
            self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))

    def python(self, *arguments: str) -> str:
        """What it prints on standard output."""
        command, left = [sys.executable, *arguments], max(0.1, self.ends - time.monotonic())
        how: dict[str, Any] = {"cwd": self.folder, "env": self._environment, "text": True, "errors": "replace"}
        try:
            done = subprocess.run(command, capture_output=True, timeout=left, **how)
        except subprocess.TimeoutExpired as error:
            parts = [part for part in (error.stdout, error.stderr) if part]  # bytes or text, by the release of Python
            self.log = "".join(part if isinstance(part, str) else part.decode(errors="replace") for part in parts)
            raise _Wrong(f"it was still running after the {SECONDS:.0f} s for this device") from None
        self.log = done.stdout + done.stderr
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
            raise _Wrong(next((line.removeprefix("Error: ") for line in said if line.startswith("Error: ")), said[-1].strip()))
        return done.stdout

    def nas(self, *arguments: str) -> str:
        return self.python("-m", "nas", *arguments)

    def search(self, study: str, trials: int, *options: str, space: str = "space.yaml") -> None:
        """Raises _Wrong where not so many networks have completed."""
        named = ("--study", study, "--space", space, "--dataset", "digits", "--train-subset", "300", "--device", self.device)
        short = ("--trials", str(trials), "--finalists", "0", "--seed", "0", "--json")
        told = json.loads(self.nas("search", *named, *short, *options))
        if told["trained"] != trials:
            counts = ", ".join(f"{count} {outcome}" for outcome, count in told["counts"].items())
            raise _Wrong(f"{told['trained']} of {trials} trainings completed: {counts}")


# --------------------------------------------------------------------------------------------------------------- the steps


def _search(bench: _Bench) -> str:
    bench.search("check", 2)
    return "trained 2 networks for one epoch on 300 digits"


def _retrain(bench: _Bench) -> str:
    bench.nas("retrain", "best", "--study", "check", "--epochs", "1", "--no-compile", "--device", bench.device)
    return "trained the better one for one epoch on all digits, and evaluated it"


def _predict(bench: _Bench) -> str:
    np.save(bench.folder / "images.npy", np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8))
    found: list[np.ndarray] = []
    for device in (bench.device, "cpu"):
        more = ("--threads", "1") if device == bench.device else ()
        bench.nas("submit", "images.npy", "--study", "check", "--probabilities", f"{len(found)}.csv", "--device", device, *more)
        with open(bench.folder / f"{len(found)}.csv", newline="") as file:
            found.append(np.array([row[1:] for row in csv.reader(file)][1:], dtype=float))
    apart = float(np.abs(found[0] - found[1]).max())
    said = f"probabilities of 64 images differ from the CPU's by at most {apart:.1g}"
    if not apart <= TOLERANCE:
        raise _Wrong(f"{said}; {TOLERANCE:g} is allowed")
    return f"{said} ({TOLERANCE:g} is allowed)"


def _run_out_of_memory(bench: _Bench) -> str:
    bench.search("hungry", 1, space="hungry.yaml")
    if not (parts := re.search(r"micro-batches of (\d+) images", bench.log)):
        raise _Wrong("nas did not notice that memory ran out")
    return f"memory ran out with batches of 64 images, as intended; the network trained with micro-batches of {parts[1]}"


def _two_workers(bench: _Bench) -> str:
    if bench.device == "cpu" and usable_cores() < 2:
        raise _NotHere("two workers need two cores")
    if bench.device == "mps":
        raise _NotHere("one worker uses the whole device")
    bench.search("two", 2, "--workers" if bench.device == "cpu" else "--workers-per-gpu", "2")
    return "two workers trained 2 networks at the same time"


def _throughput(bench: _Bench) -> str:
    program = "import sys; from nas.report.device_check import measure_throughput; print(*measure_throughput(sys.argv[1]))"
    ours, bare = map(float, bench.python("-c", program, bench.device).split())
    said = f"{ours:,.0f} images/s in training, {ours / bare:.0%} of the {bare:,.0f} of a minimal PyTorch loop"
    if ours < LEAST_SHARE * bare:
        raise _Wrong(f"{said}; at least {LEAST_SHARE:.0%} is expected")
    return said


def measure_throughput(name: str) -> tuple[float, float]:
    """Images a second of a training by nas, with augmentation and averaged weights, and of a loop that has nothing but forward,
    backward and step, on a batch that is there already. Of the same network in the same precision, one after the other; on the
    CPU by one thread, whom other programs disturb least."""
    device = torch.device(name)
    tune_process(device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    large = device.type != "cpu"
    channels, count = (64, 512) if large else (16, 64)
    shape = ImageShape(channels=3, size=32, classes=10)
    arch = ArchConfig(stages=tuple(StageConfig(blocks=2 if large else 1, channels=channels << stage) for stage in range(3)))
    recipe = TrainConfig.model_validate({"batch_size": count, "augment": {"crop_padding": 4, "flip": "horizontal"}})
    rng, precision = np.random.default_rng(0), pick_precision(device)
    pictures = ImageSet(rng.integers(0, 256, (8 * count, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 8 * count))
    data = Resident(pictures, (128.0,) * 3, (64.0,) * 3, device)
    few = Resident(pictures.only(np.arange(8)), (128.0,) * 3, (64.0,) * 3, device)
    train = TrainBatches(data, recipe, 0, 10)
    pace = measure_pace(build_model(arch, shape), train, few, recipe, precision, TIMED_SECONDS)

    model = build_model(arch, shape).to(device).to(memory_format=torch.channels_last).train()
    images = torch.randn(count, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (count,), device=device)
    optimiser = make_optimiser(model, recipe, device)

    def loop(steps: int) -> float:
        """Seconds a step."""
        started = time.perf_counter()
        for _ in range(steps):
            with autocast(device, precision):
                loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        wait_for(device)
        return (time.perf_counter() - started) / steps

    loop(3)
    rounds, ends = list[float](), time.perf_counter() + TIMED_SECONDS
    while not rounds or time.perf_counter() < ends:
        rounds.append(loop(10 if large else 1))
    return train.batch_size / pace.step, count / float(np.median(rounds))


@dataclass(frozen=True)
class Step:
    run: Callable[[_Bench], str]
    advice: str  # where it fails and its command says nothing better
    needs: str | None = None  # the step without which it means nothing


SEND = f"report the fault, and attach {REPORT}"
STEPS = {
    "search": Step(_search, SEND),
    "retrain": Step(_retrain, SEND, "search"),
    "prediction": Step(_predict, f"predict with --device cpu for now; {SEND}", "retrain"),
    "memory": Step(_run_out_of_memory, f"search with a smaller batch_size or --max-params if memory is short; {SEND}"),
    "two workers": Step(_two_workers, f"search with one worker for each device; {SEND}"),
    "throughput": Step(_throughput, f"check whether another program uses the device, and run the check again; otherwise {SEND}"),
}


# ------------------------------------------------------------------------------------------------------------ all of them


def check_devices(health: Health, say: Callable[[Row], None]) -> list[Row]:
    """Each GPU that works, all at the same time, or the CPU where there is none. Tells `say` each row as it ends, and writes
    all that there are to REPORT. Raises OSError where that cannot be written."""
    found = find_devices()
    devices = [name for name, wrong in found.items() if wrong is None and name not in ("cuda", "cpu")] or ["cpu"]
    rows: list[Row] = []
    lock, stop = threading.Lock(), threading.Event()

    def add(row: Row) -> None:
        with lock:
            rows.append(row)
            say(row)
            _write_report(health, rows)

    def check(device: str) -> None:
        with tempfile.TemporaryDirectory(prefix="nas-check-", ignore_cleanup_errors=True) as folder:
            bench, passed = _Bench(device, Path(folder)), set[str]()
            for name, step in STEPS.items():
                if stop.is_set():
                    return
                row = _try(bench, name, step, passed)
                passed |= {name} if row.passed else set()
                add(row)

    _write_report(health, rows)  # what cannot be written is said before anything is tried
    for device, wrong in broken_among(found).items():
        add(Row(device, "device", False, 0.0, f"it does not work: {wrong}", "nas doctor shows which devices work"))
    with ThreadPoolExecutor(len(devices)) as pool:
        try:
            list(pool.map(check, devices))
        finally:
            stop.set()
    return rows


def _try(bench: _Bench, name: str, step: Step, passed: set[str]) -> Row:
    started = time.monotonic()

    def row(passed: bool | None, found: str, **more: str) -> Row:
        return Row(bench.device, name, passed, round(time.monotonic() - started, 1), found, **more)

    if step.needs is not None and step.needs not in passed:
        return row(None, f"it needs the result of step {step.needs!r}")
    if started >= bench.ends:
        return row(False, f"the {SECONDS:.0f} s for this device are over", advice="run it again when the machine is idle")
    bench.log = ""
    try:
        return row(True, step.run(bench))
    except _NotHere as reason:
        return row(None, str(reason))
    except _Wrong as reason:
        said = re.search(r"^Next:  (.+)$", bench.log, re.MULTILINE)
        return row(False, str(reason), advice=said[1] if said else step.advice, log=bench.log[-LOG_CHARACTERS:])


def as_table(rows: list[Row]) -> Table:
    cells = [(row.device, row.step, row.result, f"{row.seconds:.1f}", row.found) for row in rows]
    return Table(("device", "step", "result", "seconds", "found"), cells, frozenset({3}))


def _write_report(health: Health, rows: list[Row]) -> None:
    """Without the names of persons and machines."""
    told = ("python", "machine", "cores", "packages", "devices", "sqlite", "file_system", "problems")
    machine = {key: value for key, value in asdict(health).items() if key in told} | {"cuda": torch.version.cuda}
    set_here = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF")
    machine["environment"] = {name: os.environ[name] for name in set_here if name in os.environ}
    content = {"machine": machine, "rows": [asdict(row) for row in rows]}
    write_whole(REPORT, json.dumps(scrub(content, private_words()), indent=1).encode())


def private_words() -> dict[str, str]:
    """Of this machine and its user, each with what is written instead; the longest first."""
    words = {}
    with suppress(RuntimeError):
        words[str(Path.home())] = "~"
    with suppress(KeyError, OSError, ImportError):  # a user without a name, as in containers
        words[getpass.getuser()] = "USER"
    for host in {socket.gethostname(), socket.gethostname().partition(".")[0]}:
        words[host] = "HOST"
    return dict(sorted(words.items(), key=lambda item: -len(item[0])))


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def scrub(value: Any, words: dict[str, str]) -> Any:
    """JSON, whose texts lose the `words` and UUIDs."""
    if isinstance(value, dict):
        return {key: scrub(one, words) for key, one in value.items()}
    if isinstance(value, list):
        return [scrub(one, words) for one in value]
    if not isinstance(value, str):
        return value
    for word, instead in words.items():
        if word.strip("/"):
            value = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", instead, value)
    return _UUID.sub("UUID", value)

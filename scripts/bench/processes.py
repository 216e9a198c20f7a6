"""Of `scale.py`, what is measured from outside: fresh processes that read a data set, and whole searches, watched by their files
and by /proc."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import Clock, milliseconds, progress, spread, table
from PIL import Image

HERE = Path(__file__).resolve().parent
POLL_SECONDS = 0.01
CLASSES = 10
TINY_SPACE = """
version: 1
budget: {params: 100k}
arch:
  stages: 2
  block: basic
  stem: {stride: 2}
  stage: {blocks: 1, channels: 4}
train:
  epochs: 4
  batch_size: 512
  lr: {type: float, low: 0.01, high: 0.1, log: true}
  augment: {crop_padding: 4, flip: horizontal}
"""


# ------------------------------------------------------------------------------------------------- images in a data set


def image_folder(scratch: Path, count: int, size: int) -> Path:
    """`count` colour images, made once: noise, a shade for each class, so that something can be learned."""
    root = scratch / f"images-{count}-{size}"
    if (root / "made").exists():
        return root
    progress(f"writing {count:,} images of {size}×{size}")
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (root / "train" / f"class{label}").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = rng.integers(0, 128, (size, size, 3), dtype=np.uint8) + np.uint8(12 * (i % CLASSES))
        # Uncompressed, since it is the number of files that matters here.
        Image.fromarray(pixels).save(root / "train" / f"class{i % CLASSES}" / f"{i:06d}.png", compress_level=0)
    (root / "made").touch()
    return root


def laps(mode: str, dataset: str, folder: Path | None, cache: Path) -> dict[str, Any]:
    """Of a fresh process."""
    command = [sys.executable, str(HERE / "laps.py"), mode, dataset, *(["--data", str(folder)] if folder else [])]
    environment = os.environ | {"NAS_CACHE": str(cache)}
    done = subprocess.run([*command, "--begun", str(time.time())], capture_output=True, text=True, env=environment, check=True)
    return json.loads(done.stdout)


def measure_data(options: argparse.Namespace) -> dict[str, Any]:
    rows = []
    for count, size in options.images:
        folder = image_folder(options.scratch, count, size)
        cache = Path(tempfile.mkdtemp(prefix="cache-", dir=options.scratch))
        progress(f"decoding {count:,} images of {size}×{size}")
        cold = laps("data", "folder", folder, cache)["seconds"]["load_dataset"]
        warm = [laps("data", "folder", folder, cache)["seconds"] for _ in range(options.repeats)]
        rows.append({"images": count, "size": size, "cold": cold, "warm": warm})
    return {"rows": rows}


DATA_LAPS = ("load_dataset", "split", "Resident", "fingerprint")


def data_table(result: dict[str, Any], options: argparse.Namespace) -> str:
    rows = []
    for row in result["rows"]:
        whole = [sum(run[lap] for lap in DATA_LAPS) for run in row["warm"]]
        steps = [milliseconds([run[lap] for run in row["warm"]]) for lap in DATA_LAPS]
        decoding = f"{row['cold']:.1f} s ({row['images'] / row['cold']:,.0f} images/s)"
        rows.append([f"{row['images']:,} of {row['size']}×{row['size']}", decoding, milliseconds(whole), *steps])
    head = ["images", "decoded, n = 1", "later start, ms", *(f"of which {lap}" for lap in DATA_LAPS)]
    return f"Later starts in fresh processes, n = {options.repeats}; median (fastest–slowest).\n\n{table(head, rows)}"


# ------------------------------------------------------------------------------------------------ processes of a search


class Search:
    """A real `nas search` in a process of its own, watched from outside: by its files and by /proc."""

    def __init__(self, scratch: Path, dataset: str, folder: Path | None, space: str, trials: int) -> None:
        self.studies = Path(tempfile.mkdtemp(prefix="studies-", dir=scratch))
        self.study = self.studies / "bench"
        data = ["--dataset", dataset, *(["--data", str(folder)] if folder else [])]
        options = ["--study", "bench", "--space", space, "--trials", str(trials), "--device", "cpu"]
        self.began = time.time()
        with open(self.studies / "log", "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nas", "search", *data, *options],
                env=os.environ | {"NAS_STUDIES": str(self.studies), "NAS_CACHE": str(scratch / "cache")},
                cwd=self.studies,
                stdout=log,
                stderr=log,
            )

    def running(self) -> Iterator[float]:
        """Yields the seconds since the command began, until it has ended. Raises SystemExit where it fails."""
        while self.process.poll() is None:
            yield time.time() - self.began
            time.sleep(POLL_SECONDS)
        if self.process.returncode:
            raise SystemExit((self.studies / "log").read_text())

    def child(self, title: bytes) -> int | None:
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            return next((int(c) for c in children if title in Path(f"/proc/{c}/cmdline").read_bytes()), None)
        except OSError:
            return None

    @property
    def worker(self) -> int | None:
        """Its process, once it has given itself its name: when it has imported its own modules."""
        return self.child(b"nas worker")

    def epochs(self) -> int:
        """That have ended, of all trials."""
        return sum(file.read_bytes().count(b"\n") for file in self.study.glob("trials/*/metrics.jsonl"))


def megabytes(pid: int | None) -> dict[str, float]:
    """RssAnon is a process's own, RssFile what it maps: libraries, and decoded images, which all workers share."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith("Rss")}


def watch_memory(search: Search) -> list[dict[str, Any]]:
    """After each epoch, and in between every 0.1 s."""
    samples: list[dict[str, Any]] = []
    epochs, due = 0, 0.0
    for now in search.running():
        if (ended := search.epochs()) == epochs and now < due:
            continue
        worker = megabytes(search.worker)
        if worker:
            coordinator = megabytes(search.process.pid)
            samples.append({"at": now, "epochs": ended, "ends": ended > epochs, "worker": worker, "coordinator": coordinator})
        epochs, due = ended, now + 0.1
    return samples


def slope(samples: list[dict[str, Any]], who: str) -> float:
    """Megabytes of RssAnon an epoch, by least squares over the epochs' ends, without the first, which warms up."""
    ends = [sample for sample in samples if sample["ends"] and sample["epochs"] > 1]
    return float(np.polyfit([s["epochs"] for s in ends], [s[who]["RssAnon"] for s in ends], 1)[0]) if len(ends) > 1 else 0.0


def measure_memory(options: argparse.Namespace) -> dict[str, Any]:
    space = options.scratch / "tiny.yaml"
    space.write_text(TINY_SPACE)
    rows = []
    for count, size in options.images:
        folder = image_folder(options.scratch, count, size)
        longest = (count, size) == options.images[-1]
        trials = options.searched if longest else 1
        progress(f"searching with {count:,} images of {size}×{size}, {trials} trials")
        search = Search(options.scratch, "folder", folder, str(space), trials)
        rows.append({"images": count, "size": size, "trials": trials, "samples": watch_memory(search)})
    return {"rows": rows}


def memory_table(result: dict[str, Any], options: argparse.Namespace) -> str:
    rows = []
    for row in result["rows"]:
        name = f"{row['images']:,} of {row['size']}×{row['size']}"
        for who in ("worker", "coordinator"):
            each = [sample[who] for sample in row["samples"] if sample[who]]
            anonymous, mapped = ([sample[key] for sample in each] for key in ("RssAnon", "RssFile"))
            most = [f"{max(anonymous):,.0f}", f"{anonymous[-1]:,.0f}", f"{max(mapped):,.0f}"]
            rows.append([name, who, str(row["trials"]), *most, f"{slope(row['samples'], who):+.2f}"])
    head = ["images", "process", "trials", "own memory at most, MB", "at the end", "mapped at most", "growth, MB an epoch"]
    last = [sample for sample in result["rows"][-1]["samples"] if sample["ends"]]
    curve = [[str(s["epochs"]), *(f"{s[who]['RssAnon']:,.1f}" for who in ("worker", "coordinator"))] for s in last]
    curves = table(["epochs trained so far", "worker, MB", "coordinator, MB"], curve)
    return f"{table(head, rows)}\n\nThe last one, after each epoch of its {options.searched} trials:\n\n{curves}"


# ---------------------------------------------------------------------------------------------------------------- start

EVENTS = {
    "worker process started": lambda search: (search.child(b"spawn_main") or search.worker) is not None,
    "study locked: data read, space checked": lambda search: (search.study / "study.lock").exists(),
    "study opened": lambda search: (search.study / "study.token").exists(),
    "worker's own modules imported": lambda search: search.worker is not None,
    "first candidate handed out": lambda search: any(search.study.glob("trials/*/candidate.json")),
    "first epoch begins": lambda search: any(search.study.glob("trials/*/metrics.jsonl")),
}
"""In the order in which they are usual; a training leaves its empty curve before its first step."""


def first_epoch(dataset: str, folder: Path | None, options: argparse.Namespace) -> dict[str, float]:
    """When each event was seen, in seconds since the command began; the search is stopped there."""
    space = {"digits": "digits"}.get(dataset, "resnet-small")
    search = Search(options.scratch, dataset, folder, space, 1)
    seen: dict[str, float] = {}
    try:
        for now in search.running():
            seen |= {name: now for name, happened in EVENTS.items() if name not in seen and happened(search)}
            if len(seen) == len(EVENTS):
                break
    finally:
        search.process.kill()  # its workers end with it
        search.process.wait()
    return seen


def measure_start(options: argparse.Namespace) -> dict[str, Any]:
    help_times = Clock()
    for _ in range(options.repeats + 1):
        command = [sys.executable, "-m", "nas", "--help"]
        help_times("help", lambda c=command: subprocess.run(c, stdout=subprocess.DEVNULL, check=True))
    rows = []
    for dataset, folder in (("digits", None), ("folder", image_folder(options.scratch, options.start_images, 32))):
        progress(f"starting with {dataset}")
        laps("data", dataset, folder, options.scratch / "cache")  # fills the cache
        seen = [first_epoch(dataset, folder, options) for _ in range(options.repeats)]
        steps = [laps("worker", dataset, folder, options.scratch / "cache") for _ in range(options.repeats)]
        rows.append({"dataset": dataset, "seen": seen, "worker": [s["seconds"] for s in steps], "imported": steps[0]["imported"]})
    return {"help": help_times.seconds["help"][1:], "rows": rows}


def start_table(result: dict[str, Any], options: argparse.Namespace) -> str:
    names = [row["dataset"] for row in result["rows"]]
    names = [f"folder, {options.start_images:,} images" if name == "folder" else name for name in names]
    events = [[event, *(spread((s[event] for s in row["seen"]), 2) for row in result["rows"])] for event in EVENTS]
    all_laps = result["rows"][0]["worker"][0]
    steps = [[lap, *(spread((s[lap] for s in row["worker"]), 2) for row in result["rows"])] for lap in all_laps]
    return "\n\n".join(
        [
            f"`nas --help`: {milliseconds(result['help'])} ms, n = {options.repeats}.",
            f"Seconds since `nas search` was started, warm cache, n = {options.repeats}; median (fastest–slowest).",
            table(["event", *names], events),
            f"A worker by itself; it imports {', '.join(result['rows'][0]['imported']) or 'nothing heavy beside torch'}.",
            table(["step, in seconds", *names], steps),
        ]
    )


# -------------------------------------------------------------------------------------------------------------- formats


def measure_formats(options: argparse.Namespace) -> dict[str, Any]:
    """In turns, so that what else the machine does meets all of them."""
    rows: dict[str, dict[str, list[float]]] = {path.name: {"cold": [], "warm": []} for path in options.formats}
    for _ in range(options.repeats):
        for path in options.formats:
            shutil.rmtree(options.scratch / "cache", ignore_errors=True)
            for cache in ("cold", "warm"):
                progress(f"{path.name}, {cache}")
                rows[path.name][cache].append(first_epoch("folder", path.absolute(), options)["first epoch begins"])
    return rows


def formats_table(result: dict[str, Any], options: argparse.Namespace) -> str:
    first = next(iter(result.values()))

    def cells(row: dict[str, list[float]], cache: str) -> list[str]:
        return [spread(row[cache], 1), spread((mine / his for mine, his in zip(row[cache], first[cache], strict=True)), 2)]

    rows = [[name, *cells(row, "cold"), *cells(row, "warm")] for name, row in result.items()]
    head = ["data", "cold cache", "× the first", "warm cache", "× the first"]
    return f"Seconds from the command to the first epoch, n = {options.repeats}; median (fastest–slowest).\n\n{table(head, rows)}"

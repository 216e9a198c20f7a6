"""Trained networks an hour: `nas search` against what one would write without it (`plain.py`), for the same draws and epochs.

    python scripts/bench/trials.py --space small --dataset folder --data FOLDER --trials 4 --epochs 1 --train-subset 10000

Both are timed as whole commands, from their start to their end, in turns; the images lie decoded in the cache before. nas also
draws those that are over budget, counts them, evaluates two sets of weights, writes checkpoints; plain.py is handed what nas
trained.

Where the time goes is measured in another run of the real command, with clocks put around its functions from here;
`--repeats 0` does only that. Calls on a GPU return before it is done: what they cause shows where something waits for it.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

# What is heavy is imported where it is used: a worker of the timed search reads this file, too, before it begins.

HERE = Path(__file__).resolve().parent
STUDY = "bench"
RANGES = {"small": (0, 300_000), "large": (1_000_000, 5_000_000)}
"""Parameters that networks of these spaces are meant to have."""
OUTSIDE_TRAININGS = {"start: data and device", "wait for a candidate"}
"""Of what a worker's clocks count."""
TIMES = "NAS_BENCH_TIMES"
"""Environment variable: the folder where the processes of a timed search leave their clocks."""

# ------------------------------------------------------------------------------------------------------- the clocks


class Clocks:
    """Seconds by what they were spent on: of nested calls each counts its own alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self.marks: dict[str, float] = {}
        """When something happened first, by `time.time`, which several processes share."""
        self.spans: list[tuple[float, float]] = []
        """Of the trainings."""
        self._inner: list[float] = []

    def mark(self, what: str) -> None:
        self.marks.setdefault(what, time.time())

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[what] += spent - self._inner.pop()
            self.calls[what] += 1
            if self._inner:
                self._inner[-1] += spent

    def put(self, owner: Any, name: str, what: str | Callable[..., str], before: Callable[[], None] = lambda: None) -> None:
        """Around a function; `what` may follow from its arguments."""
        real = getattr(owner, name)

        @functools.wraps(real)
        def timed(*args: Any, **kwargs: Any) -> Any:
            before()
            with self.on(what if isinstance(what, str) else what(*args)):
                return real(*args, **kwargs)

        setattr(owner, name, timed)

    def put_on_each(self, owner: Any, name: str, what: str) -> None:
        """Around what a generator does between two items."""
        real = getattr(owner, name)

        @functools.wraps(real)
        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with closing(real(*args, **kwargs)) as items:
                while True:
                    with self.on(what):
                        item = next(items, None)
                    if item is None:
                        return
                    yield item

        setattr(owner, name, timed)

    def write(self, name: str) -> None:
        own = {"seconds": self.seconds, "calls": self.calls, "marks": self.marks, "spans": self.spans}
        Path(os.environ[TIMES], name).write_text(json.dumps(own))


def timed_search(arguments: list[str]) -> None:
    """`nas` with these arguments, in this process."""
    clocks = Clocks()
    from nas.budget import Budget
    from nas.cli.main import main
    from nas.search import run
    from nas.search.coordinator import Coordinator
    from nas.search.drawing import Drawer
    from nas.search.executors import local

    clocks.put(run, "run_search", "all else", before=lambda: clocks.mark("search"))
    clocks.put(run, "load_dataset", "start: data")
    clocks.put(run, "check_feasible", "start: is anything feasible")
    clocks.put(run, "split", "start: data")
    clocks.put(run, "owned_study", "start: study")
    clocks.put(Drawer, "step", "draw")
    clocks.put(Budget, "check", "budget check")
    clocks.put(Coordinator, "submit", "hand out")
    clocks.put(Coordinator, "on_epoch", "epoch: report and answer")
    clocks.put(Coordinator, "on_end", "end: record")
    clocks.put(Coordinator, "settle", "tell")
    clocks.put(local.LocalExecutor, "start", "start the workers", before=lambda: clocks.mark("workers"))
    clocks.put(local.LocalExecutor, "receive", "wait for messages")
    clocks.put(local.LocalExecutor, "close", "end the workers")
    local._main = timed_worker  # type: ignore[assignment]
    sys.argv = ["nas", *arguments]
    try:
        main()
    finally:
        clocks.write("coordinator.json")


def timed_worker(*args: Any) -> None:
    """Takes the place of what a worker's process begins with."""
    clocks = Clocks()
    clocks.mark("imported")
    import torch

    from nas import models
    from nas.data.loader import TrainBatches
    from nas.search import worker
    from nas.search.executors import local
    from nas.train import loop

    train = worker._Trainer.train

    def timed_train(*inner: Any) -> None:
        begun = time.time()
        with clocks.on("rest"):
            train(*inner)
        clocks.spans.append((begun, time.time()))

    def which_step(trainer: Any, *_: Any) -> str:
        return "other steps" if trainer.curve or trainer.epoch_step else "first step"

    worker._Trainer.train = timed_train  # type: ignore[method-assign, assignment]
    clocks.put(worker, "_serve", "wait for a candidate", before=lambda: clocks.mark("ready"))
    clocks.put(worker._Trainer, "__init__", "start: data and device")
    clocks.put(worker._Trainer, "_verdict", "wait for the answer to an epoch")
    clocks.put(worker._Trainer, "_should_suspend", "look for messages")
    clocks.put(models, "build_model", "build")
    clocks.put(loop._Trainer, "__init__", "optimiser and averaged weights")
    clocks.put(loop._Trainer, "restore", "look for a checkpoint")
    clocks.put_on_each(TrainBatches, "epoch", "augmented batches")
    clocks.put(loop._Trainer, "step", which_step)
    clocks.put(loop._Trainer, "validate", "evaluation")
    clocks.put(loop._Trainer, "save", "checkpoint")
    clocks.put(loop, "write_curve", "curve on disk")
    clocks.put(torch.cuda, "synchronize", "wait for the GPU")
    try:
        local._main(*args)
    finally:
        clocks.write(f"worker-{os.getpid()}.json")


# ------------------------------------------------------------------------------------------------------ the commands


def data_arguments(options: argparse.Namespace) -> list[str]:
    arguments = ["--dataset", options.dataset, "--seed", str(options.seed), "--device", options.device]
    if options.data is not None:
        arguments += ["--data", options.data]
    if options.train_subset is not None:
        arguments += ["--train-subset", str(options.train_subset)]
    return arguments


def search_arguments(options: argparse.Namespace, workers: int) -> list[str]:
    count = "--workers" if options.device == "cpu" else "--workers-per-gpu"
    length = ["--trials", str(options.trials), "--epochs", str(options.epochs)]
    return ["search", "--study", STUDY, "--space", options.space, *length, *data_arguments(options), count, str(workers)]


def run_command(command: list[str], folder: Path, **environment: str) -> tuple[float, float]:
    """When it began and ended, by `time.time`. What it prints lies in the folder."""
    log = folder / "log.txt"
    with log.open("wb") as file:
        started = time.time()
        status = subprocess.run(command, stdout=file, stderr=file, env={**os.environ, **environment}).returncode
        ended = time.time()
    if status:
        sys.exit(f"{' '.join(command)} ended with {status}:\n{log.read_text()[-3000:]}")
    return started, ended


@contextmanager
def fresh_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nas-bench-") as name:
        yield Path(name)


def read_trained(studies: Path) -> list[dict[str, Any]]:
    """The trials that trained, in their order."""
    from nas.paths import StudyPaths
    from nas.search.outcomes import COUNTED, TrialRow
    from nas.search.storage import open_study

    trials = open_study(StudyPaths(studies / STUDY)).get_trials(deepcopy=False)
    rows = [(TrialRow.of(trial), trial.params) for trial in trials]
    return [{**vars(row), "drawn": params} for row, params in rows if row.outcome in COUNTED]


def run_nas(options: argparse.Namespace, workers: int) -> tuple[float, list[dict[str, Any]]]:
    """Seconds, and what was trained."""
    with fresh_folder() as folder:
        command = [sys.executable, "-m", "nas", *search_arguments(options, workers)]
        started, ended = run_command(command, folder, NAS_STUDIES=str(folder))
        return ended - started, read_trained(folder)


def run_plain(options: argparse.Namespace, trained: list[dict[str, Any]]) -> tuple[float, list[dict[str, Any]]]:
    """Seconds, and each trial's accuracy and seconds."""
    with fresh_folder() as folder:
        drawn, results = folder / "drawn.json", folder / "results.json"
        rows = [{"params": trial["drawn"], "epochs": trial["epochs"]} for trial in trained]
        drawn.write_text(json.dumps({"epochs": options.epochs, "trials": rows}))
        files = ["--space", options.space, "--trials", str(drawn), "--results", str(results)]
        command = [sys.executable, str(HERE / "plain.py"), *files, *data_arguments(options)]
        started, ended = run_command(command, folder)
        return ended - started, json.loads(results.read_text())


def run_timed(options: argparse.Namespace, workers: int) -> dict[str, Any]:
    """Where the time of a search goes."""
    with fresh_folder() as folder:
        times = folder / "times"
        times.mkdir()
        command = [sys.executable, str(HERE / "trials.py"), "--timed", *search_arguments(options, workers)]
        span = run_command(command, folder, NAS_STUDIES=str(folder), **{TIMES: str(times)})
        coordinator = json.loads((times / "coordinator.json").read_text())
        crew = [json.loads(file.read_text()) for file in sorted(times.glob("worker-*.json"))]
        return break_down(span, coordinator, crew)


# ----------------------------------------------------------------------------------------------------- what is found


def break_down(span: tuple[float, float], coordinator: dict[str, Any], crew: list[dict[str, Any]]) -> dict[str, Any]:
    """The command's own course, what the workers and what the coordinator spent their time on, all in seconds."""
    spans = [tuple(one) for worker in crew for one in worker["spans"]]
    first, last = min(begun for begun, _ in spans), max(ended for _, ended in spans)
    earliest = min((worker["marks"] for worker in crew), key=lambda marks: marks["ready"])
    stages = {
        "python and imports of the coordinator": coordinator["marks"]["search"],
        "its data, the study": coordinator["marks"]["workers"],
        "python and imports of the first worker": earliest["imported"],
        "its data, its device": earliest["ready"],
        "until the first training": first,
        "trainings": last,
        "the end": span[1],
    }
    course, before = {}, span[0]
    for stage, until in stages.items():
        course[stage], before = until - before, until
    training: defaultdict[str, float] = defaultdict(float)
    calls = Counter(coordinator["calls"])
    for worker in crew:
        calls.update(worker["calls"])
        for what in worker["seconds"].keys() - OUTSIDE_TRAININGS:
            training[what] += worker["seconds"][what]
    training["nothing to train"] = len(crew) * (last - first) - sum(ended - begun for begun, ended in spans)
    return {
        "seconds": span[1] - span[0],
        "workers": len(crew),
        "trials": len(spans),
        "course": course,
        "training": dict(training),
        "coordinator": coordinator["seconds"],
        "calls": calls,
    }


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each search, with its counterpart. plain.py runs once a repeat for those searches that trained the same."""
    rows = []
    for repeat in range(options.repeats):
        known: dict[str, tuple[float, list[dict[str, Any]]]] = {}
        for workers in options.workers:
            seconds, trained = run_nas(options, workers)
            key = json.dumps([[trial["drawn"], trial["epochs"]] for trial in trained])
            say(f"repeat {repeat + 1}: nas, workers: {workers}: {len(trained)} trials in {seconds:.1f} s")
            if key not in known:
                known[key] = run_plain(options, trained)
                say(f"repeat {repeat + 1}: plain: the same in {known[key][0]:.1f} s")
            plain, results = known[key]
            rows.append(
                {"repeat": repeat, "workers": workers, "nas": seconds, "plain": plain, "trained": trained, "by_plain": results}
            )
    return rows


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -------------------------------------------------------------------------------------------------------- the report


def report_comparison(rows: list[dict[str, Any]]) -> str:
    from common import spread, table

    lines = []
    for workers in dict.fromkeys(row["workers"] for row in rows):
        mine = [row for row in rows if row["workers"] == workers]
        hourly = [(3600 * len(r["trained"]) / r["nas"], 3600 * len(r["trained"]) / r["plain"]) for r in mine]
        seconds = [spread([row[which] for row in mine], 1) for which in ("nas", "plain")]
        rates = [spread(each) for each in zip(*hourly, strict=True)]
        ratio = spread([row["plain"] / row["nas"] for row in mine], 1)
        lines.append([str(workers), seconds[0], seconds[1], rates[0], rates[1], ratio, str(len(mine))])
    return table(["workers of nas", "nas, s", "plain, s", "nas, trials/h", "plain, trials/h", "ratio", "n"], lines)


def report_trials(row: dict[str, Any], meant: tuple[int, int] | None) -> str:
    from common import table

    lines = []
    for trial, plain in zip(row["trained"], row["by_plain"], strict=True):
        macs = "–" if trial["macs"] is None else f"{trial['macs'] / 1e6:.1f} M"
        cells = [str(trial["number"]), f"{trial['params']:,}", macs, str(trial["epochs"]), trial["architecture"]]
        percent = [f"{value:.1%}" for value in (trial["accuracy"], plain["accuracy"])]
        lines.append([*cells, *percent, f"{plain['seconds']:.1f}", f"{plain['evaluating']:.1f}"])
    head = ["trial", "parameters", "MACs", "epochs", "network", "nas", "plain", "plain, s", "of which evaluation"]
    text = table(head, lines)
    if meant is not None:
        outside = sum(not meant[0] <= trial["params"] <= meant[1] for trial in row["trained"])
        text += f"\n\n{outside} of {len(lines)} lie outside of {meant[0]:,} to {meant[1]:,} parameters."
    return text


def report_breakdown(found: dict[str, Any]) -> str:
    from common import table

    def shares(seconds: dict[str, float], order: list[str]) -> list[list[str]]:
        total, trials = sum(seconds.values()), found["trials"]
        parts = [(key, seconds[key], found["calls"].get(key, "–")) for key in order]
        return [[key, f"{s:.3f}", f"{s / trials:.3f}", f"{s / total:.1%}", str(calls)] for key, s, calls in parts]

    def falling(seconds: dict[str, float]) -> list[str]:
        return sorted(seconds, key=lambda key: -seconds[key])

    course, training, coordinator = found["course"], found["training"], found["coordinator"]
    head = ["s", "s a trial", "share", "calls"]
    return "\n\n".join(
        [
            f"Workers: {found['workers']}; {found['trials']} trials, {found['seconds']:.1f} s in all, with the clocks.",
            table(["the command", *head], shares(course, list(course))),
            table(["the workers, from the first training to the last", *head], shares(training, falling(training))),
            table(["the coordinator, beside them", *head], shares(coordinator, falling(coordinator))),
        ]
    )


def report(found: dict[str, Any], space: str) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    parts = [f"space {space}; {machine}"]
    if found["rows"]:
        parts += [report_comparison(found["rows"]), report_trials(found["rows"][0], RANGES.get(Path(space).stem))]
        within = median(sum(trial["seconds"] for trial in row["by_plain"]) / row["plain"] for row in found["rows"])
        parts.append(f"Of plain's seconds {within:.0%} lie within its trials; the rest are imports, the data, the end.")
    return "\n\n".join([*parts, *(report_breakdown(one) for one in found["breakdown"])])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="small", help="of scripts/bench/spaces, or a file")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1, help="with 2, two thirds end after the first")
    parser.add_argument("--train-subset", type=int)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data", help="as for nas search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1], help="of nas, on the CPU or on the GPU; several are compared"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, help="everything measured is written there")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    import torch
    from common import machine

    from nas.config import DataConfig
    from nas.data.datasets import load_dataset

    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    bundled = HERE / "spaces" / f"{options.space}.yaml"
    options.space = str(bundled if bundled.is_file() else options.space)
    load_dataset(DataConfig(dataset=options.dataset, folder=options.data))  # into the cache
    found: dict[str, Any] = {"machine": {**machine(torch.device(options.device)), "load before": os.getloadavg()[0]}}
    found["options"] = {key: str(value) for key, value in vars(options).items()}
    found["breakdown"] = [run_timed(options, workers) for workers in options.workers]  # also what warms up
    found["rows"] = compare(options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    print(report(found, options.space))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--timed"]:
        timed_search(sys.argv[2:])
    else:
        main()

"""Trained networks an hour: `nas search` against what one would write without it (`plain.py`), for the same draws and epochs.

    python scripts/bench/trials.py --space small --dataset folder --data FOLDER --trials 4 --epochs 1 --train-subset 10000

Both are timed as whole commands, from their start to their end, in turns; the images lie decoded in the cache before. nas also
draws those that are over budget, counts them, evaluates two sets of weights, writes checkpoints; plain.py is handed what nas
trained.

Where the time goes is measured in another run of the real command, with clocks put around its functions from here;
`--repeats 0` does only that. Calls on a GPU return before it is done: what they cause shows where something waits for it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import in_words, machine, progress, spread, table
from plain import WORKERS
from timed import TIMES

from nas.config import DataConfig
from nas.data.datasets import load_dataset
from nas.paths import StudyPaths
from nas.study.outcomes import COUNTED
from nas.study.storage import open_study
from nas.study.trials import TrialRecord

HERE = Path(__file__).resolve().parent
STUDY = "bench"
RANGES = {"small": (0, 300_000), "large": (1_000_000, 5_000_000)}
"""Parameters that networks of these spaces are meant to have."""
OUTSIDE_TRAININGS = {"start: data and device", "wait for a candidate"}
"""Of what a worker's clocks count."""

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
    trials = open_study(StudyPaths(studies / STUDY)).get_trials(deepcopy=False)
    records = [(TrialRecord.of(trial), trial.params) for trial in trials]
    return [{**record.row(), "drawn": params} for record, params in records if record.outcome in COUNTED]


def run_nas(options: argparse.Namespace, workers: int) -> tuple[float, list[dict[str, Any]]]:
    """Seconds, and what was trained."""
    with fresh_folder() as folder:
        command = [sys.executable, "-m", "nas", *search_arguments(options, workers)]
        started, ended = run_command(command, folder, NAS_STUDIES=str(folder))
        return ended - started, read_trained(folder)


def run_plain(options: argparse.Namespace, trained: list[dict[str, Any]], loading: int) -> tuple[float, list[dict[str, Any]]]:
    """Seconds, and each trial's accuracy and seconds."""
    with fresh_folder() as folder:
        drawn, results = folder / "drawn.json", folder / "results.json"
        rows = [{"params": trial["drawn"], "epochs": trial["epochs"]} for trial in trained]
        drawn.write_text(json.dumps({"epochs": options.epochs, "trials": rows}))
        files = ["--space", options.space, "--trials", str(drawn), "--results", str(results)]
        command = [sys.executable, str(HERE / "plain.py"), *files, *data_arguments(options), "--workers", str(loading)]
        started, ended = run_command(command, folder)
        return ended - started, json.loads(results.read_text())


def run_timed(options: argparse.Namespace, workers: int) -> dict[str, Any]:
    """Where the time of a search goes."""
    with fresh_folder() as folder:
        times = folder / "times"
        times.mkdir()
        command = [sys.executable, str(HERE / "timed.py"), *search_arguments(options, workers)]
        span = run_command(command, folder, NAS_STUDIES=str(folder), **{TIMES: str(times)})
        coordinator = json.loads((times / "coordinator.json").read_text())
        crew = [json.loads(file.read_text()) for file in sorted(times.glob("worker-*.json"))]
        return break_down(span, coordinator, crew)


# ----------------------------------------------------------------------------------------------------- what is found


def break_down(span: tuple[float, float], coordinator: dict[str, Any], crew: list[dict[str, Any]]) -> dict[str, Any]:
    """The command's own course, what the workers and what the coordinator spent their time on, all in seconds."""
    spans = [tuple(one) for worker in crew for one in worker["spans"]]
    first, last = min(begun for begun, _ in spans), max(ended for _, ended in spans)
    stages = {
        "python and imports of the coordinator": coordinator["marks"]["search"],
        "its data, the study, beside the workers' imports": coordinator["marks"]["workers"],
        "until the first worker is ready": min(worker["marks"]["ready"] for worker in crew),
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
    """A row for each search, with its counterparts. plain.py runs once a repeat for those searches that trained the same."""
    rows = []
    for repeat in range(options.repeats):
        known: dict[tuple[str, int], tuple[float, list[dict[str, Any]]]] = {}
        for workers in options.workers:
            seconds, trained = run_nas(options, workers)
            progress(f"repeat {repeat + 1}: nas, workers: {workers}: {len(trained)} trials in {seconds:.1f} s")
            row = {"repeat": repeat, "workers": workers, "nas": seconds, "trained": trained, "plain": {}}
            same = json.dumps([[trial["drawn"], trial["epochs"]] for trial in trained])
            for loading in options.plain_workers:
                if (same, loading) not in known:
                    known[same, loading] = run_plain(options, trained, loading)
                    progress(f"repeat {repeat + 1}: plain, workers: {loading}: the same in {known[same, loading][0]:.1f} s")
                plain, results = known[same, loading]
                row["plain"][loading] = {"seconds": plain, "trials": results}
            rows.append(row)
    return rows


# -------------------------------------------------------------------------------------------------------- the report


def report_comparison(rows: list[dict[str, Any]]) -> str:
    lines = []
    for workers in dict.fromkeys(row["workers"] for row in rows):
        mine = [row for row in rows if row["workers"] == workers]
        for loading in mine[0]["plain"]:
            pairs = [(row["nas"], row["plain"][loading]["seconds"], len(row["trained"])) for row in mine]
            hourly = [spread([3600 * count / pair[which] for *pair, count in pairs]) for which in (0, 1)]
            seconds = [spread([pair[which] for pair in pairs], 1) for which in (0, 1)]
            ratio = spread([plain / nas for nas, plain, _ in pairs], 1)
            lines.append([str(workers), str(loading), *seconds, *hourly, ratio, str(len(mine))])
    head = ["workers of nas", "of plain's loader", "nas, s", "plain, s", "nas, trials/h", "plain, trials/h", "ratio", "n"]
    return table(head, lines)


def report_trials(row: dict[str, Any], meant: tuple[int, int] | None) -> str:
    lines = []
    for trial, plain in zip(row["trained"], list(row["plain"].values())[-1]["trials"], strict=True):
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
    parts = [f"space {space}; {in_words(found['machine'])}"]
    if found["rows"]:
        parts += [report_comparison(found["rows"]), report_trials(found["rows"][0], RANGES.get(Path(space).stem))]
        for loading in found["rows"][0]["plain"]:
            every = [row["plain"][loading] for row in found["rows"]]
            within = median(sum(trial["seconds"] for trial in one["trials"]) / one["seconds"] for one in every)
            rest = "the rest are imports, the data, the end"
            parts.append(f"Of plain's seconds, workers: {loading}, {within:.0%} lie within its trials; {rest}.")
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
    parser.add_argument(
        "--plain-workers", type=int, nargs="+", default=[0, WORKERS], help="of plain's DataLoader; Optuna's example has none, 0"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, help="everything measured is written there")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
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
    main()

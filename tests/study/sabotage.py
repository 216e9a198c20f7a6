"""Searches that are killed again and again, and what has to be true of their studies at the end.

python -m tests.study.sabotage --trials 30 --kills 40      (scripts/saboteur sets it up)
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import FrozenTrial

from nas.paths import StudyPaths
from nas.study.outcomes import COUNTED, best_trials, outcome_of
from nas.study.source import KEPT_CHECKPOINTS
from nas.study.storage import open_study
from nas.train.checkpoint import read_curve

SPACE = """
version: 1
budget: {params: 12k}
arch:
  stages: 1
  block: {type: categorical, choices: [basic, preact]}
  stage: {blocks: {type: int, low: 1, high: 2}, channels: {type: int, low: 8, high: 24}}
train:
  epochs: 12
  batch_size: 64
  lr: {type: float, low: 0.01, high: 0.3, log: true}
  augment: {crop_padding: 1, flip: none}
"""
STUDY = "sabotaged"
SECONDS = 900.0
"""For the whole; a search that hangs would otherwise never end."""


@dataclass
class Report:
    kills: Counter[str] = field(default_factory=Counter)
    """Of `the coordinator`, and of `a worker`."""
    starts: int = 0
    """Of the command."""
    seconds: float = 0.0
    log: str = ""
    """What the command printed, all starts one after another."""


def search_command(folder: Path, trials: int, workers: int, *more: str) -> list[str]:
    space = folder / "small.yaml"
    space.write_text(SPACE)
    arguments = ["search", "--space", str(space), "--dataset", "digits", "--study", STUDY, *more]
    return [*arguments, "--trials", str(trials), "--device", "cpu", "--workers", str(workers)]


def children(pid: int) -> list[int]:
    """The workers of a coordinator, by what they are called."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            title = stat.with_name("cmdline").read_bytes()
        except (OSError, IndexError):
            continue  # it has ended meanwhile
        # A worker that is still being started carries the name of multiprocessing.
        if parent == pid and (title.startswith(b"nas worker") or b"spawn_main" in title):
            found.append(int(stat.parent.name))
    return found


def epochs_trained(paths: StudyPaths) -> int:
    return sum(file.read_bytes().count(b"\n") for file in paths.trials.glob("*/metrics.jsonl"))


def sabotage(folder: Path, trials: int, kills: int, workers: int, seed: int) -> Report:
    """Runs the same command until it succeeds, killing its coordinator or one of its workers so many times."""
    rng, report = random.Random(seed), Report()
    paths = StudyPaths(folder / "studies" / STUDY)
    command = [sys.executable, "-m", "nas", *search_command(folder, trials, workers)]
    environment = os.environ | {"NAS_STUDIES": str(folder / "studies"), "NAS_CACHE": str(folder / "cache")}
    started, log = time.monotonic(), folder / "log.txt"
    while True:
        report.starts += 1
        with open(log, "a") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=folder)
        try:
            while process.poll() is None:
                assert time.monotonic() - started < SECONDS, f"it does not come to an end:\n{log.read_text()[-3000:]}"
                if sum(report.kills.values()) < kills:
                    _kill_somebody(process, paths, rng, report)
                else:
                    time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, f"it ended with {process.returncode}:\n{log.read_text()[-3000:]}"
    report.seconds, report.log = time.monotonic() - started, log.read_text()
    return report


def _kill_somebody(process: "subprocess.Popen[bytes]", paths: StudyPaths, rng: random.Random, report: Report) -> None:
    """After an epoch or two, or before anything could be done at all; somewhere in what it does then."""
    before, wanted = epochs_trained(paths), rng.choice((0, 1, 1))
    deadline = time.monotonic() + 20
    while epochs_trained(paths) < before + wanted and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.15 if wanted else 2.0))
    if process.poll() is not None:
        return
    workers = children(process.pid)
    if workers and rng.random() < 0.6:
        victim, who = rng.choice(workers), "a worker"
    else:
        victim, who = process.pid, "the coordinator"
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return
    report.kills[who] += 1
    if victim == process.pid:
        process.wait()


def check_study(paths: StudyPaths, trained: int) -> None:
    """Nothing was lost, nothing was done twice, and the database says what the files say."""
    trials = open_study(paths).get_trials()
    outcomes = [outcome_of(trial) for trial in trials]
    assert sum(outcome in COUNTED for outcome in outcomes) == trained, Counter(outcomes)
    assert not {"running", "waiting", "failed"} & set(outcomes), Counter(outcomes)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    digests = [t.user_attrs["digest"] for t, outcome in zip(trials, outcomes, strict=True) if outcome in COUNTED]
    assert len(set(digests)) == len(digests), "no network was trained twice"
    finals = {}
    for trial, outcome in zip(trials, outcomes, strict=True):
        curve = read_curve(paths.trial(trial.number).metrics)
        if outcome not in COUNTED:
            assert not curve
            continue
        assert [metrics.epoch for metrics in curve] == list(range(1, len(curve) + 1)), f"trial {trial.number}"
        in_file = {metrics.epoch: metrics.ema_val_accuracy for metrics in curve}
        assert trial.intermediate_values == in_file, f"trial {trial.number}, {outcome}: {trial.intermediate_values} and {in_file}"
        if outcome == "trained":
            finals[trial.number] = curve[-1].ema_val_accuracy
            assert trial.value == curve[-1].ema_val_accuracy
    best = best_trials(trials, KEPT_CHECKPOINTS)
    assert best[0].value == max(finals.values())
    kept = {int(file.parent.name) for file in paths.trials.glob("*/checkpoint.pt")}
    assert kept == {trial.number for trial in best}
    assert not list(paths.folder.rglob("*.tmp"))


def told(trials: Iterable[FrozenTrial]) -> list[object]:
    """All that follows from a search's seed."""
    return [(t.number, t.params, t.user_attrs["outcome"], t.values, t.intermediate_values, t.constraints) for t in trials]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["NAS_STUDIES"] = str(Path(name) / "studies")
        report = sabotage(Path(name), options.trials, options.kills, options.workers, options.seed)
        check_study(StudyPaths(Path(name) / "studies" / STUDY), options.trials)
    kills = {"kills": dict(report.kills), "starts of the command": report.starts, "seconds": round(report.seconds)}
    print(json.dumps({"trained": options.trials, **kills, "checks": "all passed"}))


if __name__ == "__main__":
    main()

"""A study as a table: its trials, its counts, its networks."""

import sqlite3
from dataclasses import asdict, dataclass
from typing import Any

from nas.errors import NasError
from nas.paths import StudyPaths, known_studies, study_paths
from nas.runs.select import finished_runs
from nas.study.finalists import Finalist, best_of, finalists_of
from nas.study.outcomes import count_outcomes, count_trained
from nas.study.ownership import is_led
from nas.study.settings import StudySettings, read_settings
from nas.study.storage import open_study
from nas.study.trials import TrialRecord


@dataclass(frozen=True)
class StudyReport:
    name: str
    settings: StudySettings
    counts: dict[str, int]  # trials of each outcome, and `running` for those that have not ended
    led: bool | None  # whether it is being searched at this moment; None where that cannot be told
    trained: int
    best: TrialRecord | None  # what `nas retrain best` trains
    finalists: list[Finalist]  # the best networks, trained again by several seeds; the winner first
    trials: list[TrialRecord]
    retrained: list[str]  # names of the finished runs, oldest first

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **vars(self),
            "settings": self.settings.model_dump(mode="json"),
            "best": None if self.best is None else self.best.row(),
            "finalists": [asdict(one) for one in self.finalists],
            "trials": [trial.row() for trial in self.trials],
        }


def report_study(paths: StudyPaths) -> StudyReport:
    study = open_study(paths)
    trials = study.get_trials(deepcopy=False)
    best, _ = best_of(study)
    counts = count_outcomes(trials)
    return StudyReport(
        name=paths.name,
        settings=read_settings(paths),
        counts=dict(counts),
        led=is_led(paths),
        trained=count_trained(counts),
        best=None if best is None else TrialRecord.of(best),
        finalists=finalists_of(study),
        trials=[TrialRecord.of(trial) for trial in trials],
        retrained=[run.folder.name for run in finished_runs(paths)],
    )


def report_all() -> tuple[list[StudyReport], list[str]]:
    """Every study under the studies folder, and a sentence for each that cannot be read."""
    reports, broken = [], []
    for name in known_studies():
        try:
            reports.append(report_study(study_paths(name)))
        except (NasError, OSError, sqlite3.Error) as error:
            broken.append(f"{name}: {error}")
    return reports, broken

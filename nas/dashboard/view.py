"""A study as optuna-dashboard is shown it: its storage, read only, with what its folder knows of each trial added on the way: a
note on its network, its curve drawn, its epochs as a table.

Nothing is written into the study for the dashboard's sake, so that studies of any age show the same and none grows. What the
dashboard offers to change (notes, names, deletion) is refused: the study belongs to its coordinator.
"""

import copy
import io
import json
import time
from collections.abc import Container, Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any, BinaryIO

import optuna
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from nas.config import METRIC_WORDS, Candidate, ImageShape, MetricName
from nas.errors import NasError, StudyError
from nas.paths import StudyPaths, TrialPaths
from nas.report.charts import Chart, cost_charts
from nas.report.network import list_layers, list_parts, shape_text
from nas.report.record import read_record
from nas.report.render import TEMPLATES
from nas.report.tables import Table, epochs_table, layers_table
from nas.report.words import recipe_texts, score_text
from nas.study.finalists import best_of, sibling
from nas.study.outcomes import broken_limits, outcome_of
from nas.study.owned import RoutedStorage
from nas.study.settings import read_settings
from nas.train.checkpoint import EpochMetrics, read_curve

CURVE = 1
FILES = {CURVE: ("curve.svg", "image/svg+xml"), 2: ("epochs.csv", "text/csv")}
"""What is made of a trial's epochs when it is asked for."""
NOTES_SECONDS = 1.0  # of each look at the study that may go into writing notes; what is left comes with the next
PLOTS_SECONDS = 20.0  # before the plots of a study that has changed are drawn again


class StudyView(RoutedStorage):
    """The storage and the artifact store of the dashboard."""

    def __init__(self, study: optuna.Study, paths: StudyPaths) -> None:
        """Raises NasError where the study's settings cannot be read."""
        settings = read_settings(paths)
        self._shape, self._metric = settings.shape, settings.study.metric
        self._study, self._paths = study, paths
        self._storage = study._storage
        self._shown: dict[int, FrozenTrial] = {}  # by identifier, trials that have ended, as they are shown
        self._notes: dict[int, str] = {}
        self._plots: tuple[float, int, list[Chart]] | None = None

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """What is read and not shown otherwise comes from the study as it is; all else is refused."""
        if not name.startswith("get_"):
            raise PermissionError("the dashboard shows the study and does not change it")
        return getattr(self._storage, name)(*arguments, **named)

    def _studies(self) -> dict[int, tuple[optuna.Study, StudyPaths]]:
        finals = sibling(self._study)
        known = {self._study._study_id: (self._study, self._paths)}
        return known if finals is None else {**known, finals._study_id: (finals, self._paths.finalists)}

    def get_all_studies(self) -> list[FrozenStudy]:
        return [
            FrozenStudy(
                study_name=study.study_name,
                direction=StudyDirection.MAXIMIZE,
                user_attrs=self.get_study_user_attrs(study_id),
                system_attrs=self.get_study_system_attrs(study_id),
                study_id=study_id,
            )
            for study_id, (study, _) in self._studies().items()
        ]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Without the settings, which the page would show as one endless line."""
        stored = self._storage.get_study_user_attrs(study_id)
        return {name: value for name, value in stored.items() if name not in ("settings", "begun")}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """With notes and plots in the form in which the dashboard keeps them."""
        attributes: dict[str, Any] = {"study:metric_names": [f"validation {METRIC_WORDS[self._metric]}"]}
        attributes |= self._storage.get_study_system_attrs(study_id)
        if study_id == self._study._study_id:
            for trial_id, text in self._all_notes().items():
                if f"dashboard:{trial_id}:note_ver" not in attributes:  # what a person wrote goes before
                    attributes[f"dashboard:{trial_id}:note_ver"] = 1
                    attributes[f"dashboard:{trial_id}:note_str:0"] = text
            for chart in self._charts():
                attributes[f"dashboard:plot_data:{chart.id}:0"] = chart.figure.to_json()
        return attributes

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        _, paths = self._studies()[study_id]
        stored = self._storage.get_all_trials(study_id, deepcopy=False, states=states)
        return [self._show(trial, study_id, paths.trial(trial.number)) for trial in stored]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        trial = self._storage.get_trial(trial_id)
        for study_id, (study, paths) in self._studies().items():
            trials = study.get_trials(deepcopy=False)
            if trial.number < len(trials) and trials[trial.number]._trial_id == trial_id:
                return self._show(trial, study_id, paths.trial(trial.number))
        raise KeyError(f"no trial {trial_id} in study {self._paths.name}")

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """What `best` means to every command: a finalist, where there were any."""
        best = best_of(self._study)[0] if study_id == self._study._study_id else self._storage.get_best_trial(study_id)
        if best is None:
            raise ValueError("no completed trial yet")
        return self.get_trial(best._trial_id)

    def _show(self, stored: FrozenTrial, study_id: int, paths: TrialPaths) -> FrozenTrial:
        if stored._trial_id in self._shown:
            return self._shown[stored._trial_id]
        trial = copy.copy(stored)
        trial._user_attrs = self._facts(stored, paths)
        trial._system_attrs = {**stored.system_attrs, "constraints": list(stored.constraints.values())}
        trial._system_attrs |= artifacts_of(stored.number, study_id, paths)
        if stored.state.is_finished():
            self._shown[stored._trial_id] = trial
        return trial

    def _facts(self, trial: FrozenTrial, paths: TrialPaths) -> dict[str, Any]:
        """In the order in which they are shown."""
        stored = trial.user_attrs
        shown: dict[str, Any] = {"outcome": outcome_of(trial).replace("_", " ")}
        shown |= {name: stored[name] for name in ("params", "macs", "architecture") if name in stored}
        with suppress(StudyError):
            if trial.intermediate_values and (curve := read_curve(paths.metrics)):
                shown["seconds per epoch"] = round(fmean(metrics.seconds for metrics in curve), 2)
        if over := broken_limits(trial):
            shown["over budget by"] = ", ".join(f"{value:.0%} of {name}" for name, value in over.items())
        return shown | {name: value for name, value in stored.items() if name not in {*shown, "digest", "excess"}}

    def _all_notes(self) -> dict[int, str]:
        """Of those that ended by their own: the best first, as many as there is time for."""
        until = time.monotonic() + NOTES_SECONDS
        ended = [t for t in self._study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
        for trial in sorted(ended, key=lambda t: -(t.value or 0.0)):
            if time.monotonic() > until:
                break
            if trial._trial_id not in self._notes:
                folder = self._paths.trial(trial.number)
                self._notes[trial._trial_id] = trial_note(trial.number, trial.value, folder, self._shape, self._metric)
        return dict(self._notes)  # to which another thread adds, for another page

    def _charts(self) -> list[Chart]:
        ended = sum(trial.state.is_finished() for trial in self._study.get_trials(deepcopy=False))
        now = time.monotonic()
        if self._plots is None or (self._plots[1] != ended and now - self._plots[0] > PLOTS_SECONDS):
            self._plots = now, ended, cost_charts(read_record(self._paths))
        return self._plots[2]

    def open_reader(self, artifact_id: str) -> BinaryIO:
        try:
            study_id, number, which = (int(part, 16) for part in artifact_id.split("-"))
            _, paths = self._studies()[study_id]
            curve = read_curve(paths.trial(number).metrics)
        except (ValueError, KeyError):
            raise ArtifactNotFound(f"no artifact {artifact_id}") from None
        except StudyError as error:
            raise ArtifactNotFound(error.message) from None
        if not curve or which not in FILES:
            raise ArtifactNotFound(f"trial {number} has no such artifact")
        text = draw_curve(curve, f"Trial {number}") if which == CURVE else epochs_table(curve, self._metric).csv()
        return io.BytesIO(text.encode())

    def write(self, artifact_id: str, content_body: BinaryIO | None = None) -> None:
        self.call("write")

    remove = write


def artifacts_of(number: int, study_id: int, paths: TrialPaths) -> dict[str, str]:
    """The system attributes by which the dashboard knows a trial's files."""
    found = {}
    for which, (filename, kind) in FILES.items():
        name = f"{study_id:x}-{number:x}-{which:x}"  # hexadecimal, as its addresses want it
        file = {"artifact_id": name, "filename": filename, "mimetype": kind, "encoding": None}
        found[f"artifacts:{name}"] = json.dumps(file)
    return found if paths.metrics.is_file() else {}


def draw_curve(curve: Sequence[EpochMetrics], title: str) -> str:
    """An SVG of training and validation accuracy against the epoch."""
    width, height, left, last = 640, 360, 60, max(curve[-1].epoch, 2)

    def x(epoch: int) -> float:
        return left + (width - left - 16) * (epoch - 1) / (last - 1)

    def y(accuracy: float) -> float:
        return height - 44 - (height - 44 - 34) * accuracy

    return TEMPLATES.get_template("curve.svg").render(
        title=title,
        width=width,
        height=height,
        left=left,
        ticks={tick: y(tick / 100) for tick in range(0, 101, 20)},
        epochs={epoch: x(epoch) for epoch in range(1, last + 1, max(1, round(last / 8)))},
        lines=[
            ("training", "#0072B2", "6 3", [(x(one.epoch), y(one.train_accuracy)) for one in curve]),
            ("validation", "#E69F00", "", [(x(m.epoch), y(v)) for m in curve if (v := m.ema_val_accuracy) is not None]),
        ],
    )


def trial_note(number: int, value: float | None, paths: TrialPaths, shape: ImageShape, metric: MetricName) -> str:
    """Cost, recipe and layers of one that ran to its end, in Markdown; where its folder is gone, a sentence that says so."""
    try:
        candidate = Candidate.from_file(paths.candidate)
    except NasError:
        return f"{paths.candidate} cannot be read, so the network is unknown."
    layers = list_layers(candidate.arch, shape)
    parts = list_parts(candidate.arch, shape, layers)
    rows = [(part.name, part.built, shape_text(part.output), f"{part.params:,}") for part in parts]
    recipe = recipe_texts(candidate.train)
    return "\n\n".join(
        [
            f"## Trial {number}: {candidate.arch.one_line()}",
            f"{sum(layer.params for layer in layers):,} parameters" + ("" if value is None else f", {score_text(value, metric)}"),
            Table(("part", "built of", "output", "parameters"), rows, frozenset({2, 3})).markdown(),
            f"**Recipe** {recipe['recipe']}",
            f"**Augmentation** {recipe['augment']}",
            "### Layers",
            layers_table(layers).markdown(),
        ]
    )

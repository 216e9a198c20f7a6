"""What the dashboard shows with a trial, from its folder: a note on its network, its curve drawn, its epochs as a table."""

import io
import json
from collections.abc import Callable, Sequence
from typing import BinaryIO

from optuna.artifacts.exceptions import ArtifactNotFound

from nas.config import Candidate, ImageShape, MetricName
from nas.errors import NasError, StudyError
from nas.paths import StudyPaths, TrialPaths
from nas.report.network import list_layers, list_parts, shape_text
from nas.report.render import TEMPLATES
from nas.report.tables import Table, epochs_table, layers_table
from nas.report.words import recipe_texts, score_text
from nas.train.checkpoint import EpochMetrics, read_curve

CURVE = 1
FILES = {CURVE: ("curve.svg", "image/svg+xml"), 2: ("epochs.csv", "text/csv")}


def artifacts_of(number: int, study_id: int, paths: TrialPaths) -> dict[str, str]:
    """The system attributes by which the dashboard knows a trial's files."""
    found = {}
    for which, (filename, kind) in FILES.items():
        name = f"{study_id:x}-{number:x}-{which:x}"  # hexadecimal, as its addresses want it
        file = {"artifact_id": name, "filename": filename, "mimetype": kind, "encoding": None}
        found[f"artifacts:{name}"] = json.dumps(file)
    return found if paths.metrics.is_file() else {}


class FolderArtifacts:
    """An artifact store that makes what it is asked for."""

    def __init__(self, folder_of: Callable[[int], StudyPaths], metric: MetricName) -> None:
        """`folder_of` a study's identifier raises KeyError where there is no such study."""
        self._folder_of, self._metric = folder_of, metric

    def open_reader(self, artifact_id: str) -> BinaryIO:
        try:
            study_id, number, which = (int(part, 16) for part in artifact_id.split("-"))
            curve = read_curve(self._folder_of(study_id).trial(number).metrics)
        except (ValueError, KeyError):
            raise ArtifactNotFound(f"no artifact {artifact_id}") from None
        except StudyError as error:
            raise ArtifactNotFound(error.message) from None
        if not curve or which not in FILES:
            raise ArtifactNotFound(f"trial {number} has no such artifact")
        text = draw_curve(curve, f"Trial {number}") if which == CURVE else epochs_table(curve, self._metric).csv()
        return io.BytesIO(text.encode())

    def write(self, artifact_id: str, content_body: BinaryIO | None = None) -> None:
        raise PermissionError("the dashboard shows the study and does not change it")

    remove = write


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

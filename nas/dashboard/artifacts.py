"""What the dashboard shows with a trial, from its folder: a note on its network, its curve drawn, its epochs as a table."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from optuna.artifacts.exceptions import ArtifactNotFound

from nas.config import Candidate, ImageShape, MetricName
from nas.errors import NasError, StudyError
from nas.paths import StudyPaths, TrialPaths
from nas.report.network import list_layers, list_parts, shape_text
from nas.report.tables import Table, epochs_table, layers_table
from nas.report.words import recipe_texts, score_text
from nas.train.checkpoint import EpochMetrics, read_curve

CURVE, EPOCHS = 1, 2
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 360, 60, 44, 34, 16  # pixels of the picture, and of its margins


@dataclass(frozen=True)
class Artifact:
    id: str  # hexadecimal, as the dashboard's addresses want it: study, trial, which
    filename: str
    mimetype: str

    @property
    def described(self) -> dict[str, str | None]:
        return {"artifact_id": self.id, "filename": self.filename, "mimetype": self.mimetype, "encoding": None}


def artifacts_of(number: int, study_id: int, paths: TrialPaths) -> list[Artifact]:
    if not paths.metrics.is_file():
        return []
    return [
        Artifact(f"{study_id:x}-{number:x}-{CURVE:x}", "curve.svg", "image/svg+xml"),
        Artifact(f"{study_id:x}-{number:x}-{EPOCHS:x}", "epochs.csv", "text/csv"),
    ]


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
        if not curve or which not in (CURVE, EPOCHS):
            raise ArtifactNotFound(f"trial {number} has no such artifact")
        text = draw_curve(curve, f"Trial {number}") if which == CURVE else epochs_table(curve, self._metric).csv()
        return io.BytesIO(text.encode())

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        raise PermissionError("the dashboard shows the study and does not change it")

    def remove(self, artifact_id: str) -> None:
        raise PermissionError("the dashboard shows the study and does not change it")


def draw_curve(curve: Sequence[EpochMetrics], title: str) -> str:
    """An SVG of training and validation accuracy against the epoch."""
    lines: dict[str, tuple[str, str, list[float | None]]] = {
        "training": ("#0072B2", "6 3", [metrics.train_accuracy for metrics in curve]),
        "validation": ("#E69F00", "", [metrics.ema_val_accuracy for metrics in curve]),
    }
    last = max(curve[-1].epoch, 2)

    def x(epoch: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - 1) / (last - 1)

    def y(accuracy: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * accuracy

    parts = [f'<text x="{LEFT}" y="20" font-weight="600">{title}: accuracy (%) against the epoch</text>']
    for tick in range(0, 101, 20):
        at = y(tick / 100)
        parts.append(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" stroke="#d8dde3"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{tick}</text>')
    step = max(1, round(last / 8))
    parts += [
        f'<text x="{x(e):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{e}</text>' for e in range(1, last + 1, step)
    ]
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">epoch</text>')
    for n, (name, (colour, dash, values)) in enumerate(lines.items()):
        points = " ".join(f"{x(m.epoch):.1f},{y(v):.1f}" for m, v in zip(curve, values, strict=True) if v is not None)
        if not points:
            continue
        style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{points}" {style}/>')
        at = WIDTH - RIGHT - 190 + 95 * n
        parts.append(f'<line x1="{at}" y1="16" x2="{at + 20}" y2="16" {style}/><text x="{at + 24}" y="20">{name}</text>')
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    font = 'font-family="system-ui, sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>{paper}{"".join(parts)}</svg>'


def trial_note(number: int, value: float | None, paths: TrialPaths, shape: ImageShape, metric: MetricName) -> str:
    """Cost, recipe and layers of one that ran to its end, in Markdown; where its folder is gone, a sentence that says so."""
    try:
        candidate = Candidate.from_file(paths.candidate)
    except NasError:
        return f"{paths.candidate} cannot be read any more: the network is not known."
    layers = list_layers(candidate.arch, shape)
    parts = list_parts(candidate.arch, shape, layers)
    stages = Table(
        ("part", "built of", "output", "parameters"),
        [(part.name, part.built, shape_text(part.output), f"{part.params:,}") for part in parts],
        frozenset({2, 3}),
    )
    recipe = recipe_texts(candidate.train)
    accuracy = "" if value is None else f", {score_text(value, metric)}"
    return "\n\n".join(
        [
            f"## Trial {number}: {candidate.arch.one_line()}",
            f"{sum(layer.params for layer in layers):,} parameters{accuracy}",
            stages.markdown(),
            f"**Recipe** {recipe['recipe']}",
            f"**Augmentation** {recipe['augment']}",
            "### Layers",
            layers_table(layers).markdown(),
        ]
    )

"""Which figures a study is shown by, with the sentence under each: the same for the page and for a paper."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from nas.report import facts, figures
from nas.report.front import trained_rows
from nas.report.record import Run, StudyRecord
from nas.search.outcomes import TrialRow
from nas.search.settings import PRESETS_SPACE

WINDOW = 20
"""Draws."""
MOST_AXES = 10
"""Of parallel coordinates."""
LEAST_POINTS = 2


@dataclass(frozen=True)
class Chart:
    id: str
    """Also the name of its file."""
    caption: str
    figure: go.Figure

    @property
    def title(self) -> str:
        return str(self.figure.layout.title.text)


def search_charts(record: StudyRecord) -> list[Chart]:
    """Only those of which there is something to see."""
    if record.settings.space == PRESETS_SPACE:
        return []
    found = (
        _history(record),
        *cost_charts(record),
        _curves(record),
        _importance(record.importance, record.metric),
        _parallel(record),
        _time(record),
        _over_budget(record),
    )
    return [chart for chart in found if chart is not None]


def cost_charts(record: StudyRecord) -> list[Chart]:
    """Accuracy against parameters and against multiply-adds: what optuna-dashboard has no plot of."""
    return [chart for name in ("params", "macs") if (chart := _costs(record, name)) is not None]


def _history(record: StudyRecord) -> Chart | None:
    points = facts.history(record.trainings)
    if not points:
        return None
    caption = (
        f"Every network that trained, in the order in which they ended, by its validation {record.metric} after its last epoch; "
        "the line is the best of those that were trained to the end."
    )
    return Chart("history", caption, figures.draw_history(points, record.metric))


def _costs(record: StudyRecord, name: str) -> Chart | None:
    """Accuracy against `params` or `macs`."""
    rows = [row for row in trained_rows(one.row for one in record.trainings) if getattr(row, name) is not None]
    if not rows:
        return None
    cost: Callable[[TrialRow], float] = lambda row: float(getattr(row, name))  # noqa: E731
    points = [(cost(row), row) for row in rows]
    front = [points[i] for i in facts.pareto_front([(place, row.accuracy or 0.0) for place, row in points])]
    best = next((point for point in points if record.best is not None and point[1].number == record.best.number), None)
    # What others reported is their accuracy, which stands beside no other metric.
    comparable = record.references if record.metric == "accuracy" else []
    references = [(float(getattr(one, name)), one) for one in comparable]
    limit = getattr(record.settings.budget, name)
    what = record.metric[:1].upper() + record.metric[1:]
    unit, title = {
        "params": ("parameters", f"{what} against parameters"),
        "macs": ("multiply-adds of one image", f"{what} against multiply-adds"),
    }[name]
    good = "accurate" if record.metric == "accuracy" else "good"
    caption = f"Networks that were trained to the end; on the step line no smaller network was as {good}."
    if references:
        caption += (
            " Triangles are reported by others after full trainings, some on test images: to be compared with a retrained "
            "network, not with the search's short trainings."
        )
    return Chart(
        f"accuracy-{name}", caption, figures.draw_costs(points, front, references, best, limit, unit, title, record.metric)
    )


def _curves(record: StudyRecord) -> Chart | None:
    if not any(one.curve for one in record.trainings):
        return None
    own = [one for one in record.trainings if one.row.outcome != "duplicate"]
    caption = f"Validation {record.metric} of the averaged weights after each epoch; those that were pruned are faded."
    best = None if record.best is None else record.best.number
    return Chart("curves", caption, figures.draw_curves(own, record.finals, best, record.metric))


def _importance(found: facts.Importance | None, metric: str) -> Chart | None:
    if found is None or not found.slots:
        return None
    caption = (
        f"By a random forest over {found.networks} networks and what each is taken to reach at its end: how much worse it "
        f"predicts networks that it has not seen when one parameter is shuffled. It explains {max(found.explained, 0.0):.0%} of "
        f"their differences" + ("." if found.explained >= 0.1 else ", which is too little to trust the order.")
    )
    return Chart("importance", caption, figures.draw_importance(found, metric))


def _parallel(record: StudyRecord) -> Chart | None:
    known = [one for one in record.trainings if one.projected is not None and one.row.outcome in ("trained", "pruned_early")]
    columns = facts.by_slot(known)
    which = ""
    if record.importance is not None and len(columns) > MOST_AXES:
        columns = {slot: columns[slot] for slot in [slot for slot in record.importance.slots if slot in columns][:MOST_AXES]}
        which = f"The {MOST_AXES} parameters that mattered most. "
    if len(known) < LEAST_POINTS or not columns:
        return None
    caption = which + (
        "A line is a network; drag along an axis to keep those that pass there. Pruned networks stand at what others gained from "
        "that epoch on; “none” where a network has no such stage."
    )
    return Chart("parallel", caption, figures.draw_parallel(columns, [one.projected or 0.0 for one in known], record.metric))


def _time(record: StudyRecord) -> Chart | None:
    shares = facts.time_spent(record.trainings, record.finals)
    return Chart("time", "Training and evaluation, summed over the workers.", figures.draw_time(shares)) if shares else None


def _over_budget(record: StudyRecord) -> Chart | None:
    points = facts.over_budget_share(record.trainings, WINDOW)
    if len(points) < LEAST_POINTS:
        return None
    caption = "What was over budget was counted, and never built or trained; a sampler that learns draws less of it."
    return Chart("over-budget", caption, figures.draw_over_budget(points, WINDOW))


def run_charts(run: Run) -> list[Chart]:
    charts = []
    if run.curve:
        validated = any(metrics.ema_val_loss is not None for metrics in run.curve)
        beside = "" if validated else " It was trained on all labelled images, so that none were left to validate on."
        caption = "Of augmented images, with label smoothing where the recipe has it." + beside
        charts.append(Chart("retrained-loss", caption, figures.draw_losses(run.curve)))
        charts.append(Chart("retrained-accuracy", f"Of augmented images.{beside}", figures.draw_accuracies(run.curve)))
    if run.evaluation is not None:
        classes = run.card.classes
        matrix = confusion_of(run)
        images = f"{len(run.evaluation.labels):,} test images, which were opened once, after the training"
        charts.append(Chart("confusion", f"Of {images}.", figures.draw_confusion(matrix, classes)))
        per_class = facts.class_accuracy(matrix)
        charts.append(Chart("class-accuracy", f"Of {images}.", figures.draw_class_accuracy(per_class, classes)))
    return charts


def confusion_of(run: Run) -> np.ndarray:
    assert run.evaluation is not None
    return facts.confusion(run.evaluation.labels, run.evaluation.predicted, len(run.card.classes))

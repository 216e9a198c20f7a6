"""Which figures a study is shown by, with the sentence under each: the same for the page and for a paper."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from nas.config import LIMIT_NAMES
from nas.report import facts, figures
from nas.report.compare import trained_rows
from nas.report.record import FullRecord
from nas.report.words import count_text
from nas.runs.record import RunRecord
from nas.study.settings import PRESETS_SPACE

WINDOW = 20  # draws
MOST_AXES = 10  # of parallel coordinates
LEAST_POINTS = 2
NEAR = 2  # times the cost of the most expensive network, or of the budget: what is farther would squeeze the study into a corner


@dataclass(frozen=True)
class Chart:
    id: str  # also the name of its file
    caption: str
    figure: go.Figure
    wide: bool = False  # whether it says nothing on a narrow page, and is better scrolled there

    @property
    def title(self) -> str:
        return str(self.figure.layout.title.text)


def search_charts(record: FullRecord) -> list[Chart]:
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


def cost_charts(record: FullRecord) -> list[Chart]:
    """Accuracy against parameters and against multiply-adds: what optuna-dashboard has no plot of."""
    return [chart for name in ("params", "macs") if (chart := _costs(record, name)) is not None]


def _history(record: FullRecord) -> Chart | None:
    points = facts.history(record.trials)
    if not points:
        return None
    caption = (
        f"Every network that trained, in the order in which they ended, by its validation {record.metric} after its last epoch; "
        "the line is the best of those that completed."
    )
    return Chart("history", caption, figures.draw_history(points, record.metric))


def _costs(record: FullRecord, cost: str) -> Chart | None:
    """Accuracy against `params` or `macs`."""
    trials = [one for one in trained_rows(record.trials) if getattr(one, cost) is not None]
    if not trials:
        return None
    front = [trials[i] for i in facts.pareto_front([(getattr(one, cost), one.accuracy or 0.0) for one in trials])]
    best = next((one for one in trials if record.best is not None and one.number == record.best.number), None)
    limit = getattr(record.settings.budget, cost)
    # What others reported is their accuracy, which stands beside no other metric.
    known = record.references if record.metric == "accuracy" else []
    farthest = NEAR * max(limit or 0, *(getattr(one, cost) for one in trials))
    references = [one for one in known if getattr(one, cost) <= farthest]
    run = record.chosen_run
    tested = run if run is not None and run.test_score is not None else None
    good = "accurate" if record.metric == "accuracy" else "good"
    caption = f"Networks that completed their training; on the step line none that cost less was as {good}."
    if references:
        caption += (
            " Triangles are reported by others after full trainings, some on test images: to be compared with a retrained "
            "network, not with the search's short trainings."
        )
    elif known:
        least = count_text(min(getattr(one, cost) for one in known))
        caption += f" The networks that others have reported have {least} {LIMIT_NAMES[cost]} and more, beyond this picture."
    drawn = figures.draw_costs(cost, trials, front, best, tested, references, limit, record.metric)
    return Chart(f"accuracy-{cost}", caption, drawn)


def _curves(record: FullRecord) -> Chart | None:
    if not any(one.curve for one in record.trials):
        return None
    own = [one for one in record.trials if one.outcome != "duplicate"]
    caption = f"Validation {record.metric} of the averaged weights after each epoch"
    if any(one.outcome == "pruned_early" for one in own):
        caption += "; networks that were pruned are faded, and end in a dot where they were given up"
    best = None if record.best is None else record.best.number
    return Chart("curves", f"{caption}.", figures.draw_curves(own, record.finals, best, record.metric))


def _importance(found: facts.Importance | None, metric: str) -> Chart | None:
    if found is None or not found.slots:
        return None
    caption = (
        f"By a random forest over {found.networks} networks and what each is taken to reach at its end: how much worse it "
        f"predicts networks that it has not seen when one parameter is shuffled. It explains {max(found.explained, 0.0):.0%} of "
        f"their differences" + ("." if found.explained >= 0.1 else ", which is too little to trust the order.")
    )
    if any(share < figures.LEAST_SHARE for share in found.slots.values()):
        caption += f" Parameters below {figures.LEAST_SHARE:.1%} are left out."
    return Chart("importance", caption, figures.draw_importance(found, metric))


def _parallel(record: FullRecord) -> Chart | None:
    known = facts.comparable(record.trials)
    columns = facts.by_slot(known)
    which = ""
    if record.importance is not None and len(columns) > MOST_AXES:
        columns = {slot: columns[slot] for slot in [slot for slot in record.importance.slots if slot in columns][:MOST_AXES]}
        which = f"The {MOST_AXES} parameters that mattered most. "
    elif len(columns) > MOST_AXES:
        which = f"The first {MOST_AXES} of {len(columns)} parameters: which matter cannot be told from so few networks. "
        columns = dict(list(columns.items())[:MOST_AXES])
    if len(known) < LEAST_POINTS or not columns:
        return None
    caption = which + (
        "A line is a network; drag along an axis to keep those that pass there. Pruned networks stand at what others gained from "
        "that epoch on, a value that was expected and never measured; “none” where a network has no such stage."
    )
    drawn = figures.draw_parallel(columns, [one.projected or 0.0 for one in known], record.metric)
    return Chart("parallel", caption, drawn, wide=True)


def _time(record: FullRecord) -> Chart | None:
    shares = facts.time_spent(record.trials, record.finals)
    caption = "Training and evaluation, summed over the workers, by what became of the network."
    return Chart("time", caption, figures.draw_time(shares)) if shares else None


def _over_budget(record: FullRecord) -> Chart | None:
    points = facts.over_budget_share(record.trials, WINDOW)
    if len(points) < LEAST_POINTS:
        return None
    caption = "What was over budget was counted, and never built or trained; a sampler that learns draws less of it."
    return Chart("over-budget", caption, figures.draw_over_budget(points, WINDOW))


def run_charts(run: RunRecord) -> list[Chart]:
    charts = []
    if run.curve:
        validated = any(metrics.ema_val_loss is not None for metrics in run.curve)
        held_out = run.card.held_out is not None
        trained_on = "the images that were set aside judge it at its end" if held_out else "it was trained on all labelled images"
        beside = "" if validated else f" Nothing was validated on the way: {trained_on}."
        caption = "Of the training on augmented images, with label smoothing where the recipe has it." + beside
        charts.append(Chart("retrained-loss", caption, figures.draw_retraining(run.curve, "loss")))
        caption = "Of the training on augmented images, with the weights of that moment." + beside
        charts.append(Chart("retrained-accuracy", caption, figures.draw_retraining(run.curve, "accuracy")))
    if run.evaluation is not None:
        classes = run.card.classes
        matrix = confusion_of(run)
        how = "did not train it" if run.card.test_images is None else "were opened once, after the training"
        images = f"{len(run.evaluation.labels):,} {run.judged_on}, which {how}"
        charts.append(Chart("confusion", f"Of {images}.", figures.draw_confusion(matrix, classes)))
        per_class = facts.class_accuracy(matrix)
        charts.append(Chart("class-accuracy", f"Of {images}.", figures.draw_class_accuracy(per_class, classes)))
    return charts


def confusion_of(run: RunRecord) -> np.ndarray:
    assert run.evaluation is not None
    return facts.confusion(run.evaluation.labels, run.evaluation.predicted, len(run.card.classes))

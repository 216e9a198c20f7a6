"""The figures of a retrained network."""

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from nas.report import facts
from nas.report.charts import BLUE, ORANGE, Chart, new_figure, percent
from nas.runs.record import RunRecord

RETRAINING = {
    "loss": ("cross-entropy (nats per image)", 1.0, "with the recipe's label smoothing"),
    "accuracy": ("accuracy (%)", 100.0, "with the current weights, not the EMA weights"),
}
"""What is shown of the epochs: the axis, by what values are multiplied, what the training's are of."""


def run_charts(run: RunRecord) -> list[Chart]:
    charts = []
    if run.curve:
        beside = ""
        if all(metrics.ema_val_loss is None for metrics in run.curve):
            trained_on = "it was trained on all labelled images"
            if run.card.held_out is not None:
                trained_on = "the held-out images are evaluated only at the end"
            beside = f" There is no validation during the training: {trained_on}."
        for what, (axis, factor, how) in RETRAINING.items():
            figure = new_figure(f"Retraining: {what}", "epoch", axis, counted=len(run.curve))
            for field, label, colour in ((f"train_{what}", "training", BLUE), (f"ema_val_{what}", "validation", ORANGE)):
                values = [getattr(metrics, field) for metrics in run.curve]
                if any(value is not None for value in values):
                    x = [metrics.epoch for metrics in run.curve]
                    y = [None if value is None else factor * value for value in values]
                    figure.add_scatter(x=x, y=y, mode="lines", name=label, line={"color": colour, "width": 2})
            figure.update_layout(showlegend=True)
            charts.append(Chart(f"retrained-{what}", f"Measured on the augmented training images, {how}.{beside}", figure))
    if run.evaluation is not None:
        how = "were not used for training" if run.card.test_images is None else "were evaluated once, after the training"
        caption = f"Of {len(run.evaluation.labels):,} {run.judged_on}, which {how}."
        names = [escape(name) for name in run.card.classes]  # plotly reads some tags
        matrix = confusion_of(run)
        charts.append(Chart("confusion", caption, _confusion(matrix, names)))
        charts.append(Chart("class-accuracy", caption, _class_accuracy(facts.class_accuracy(matrix), names)))
    return charts


def confusion_of(run: RunRecord) -> np.ndarray:
    assert run.evaluation is not None
    return facts.confusion(run.evaluation.labels, run.evaluation.predicted, len(run.card.classes))


def _confusion(matrix: np.ndarray, names: Sequence[str]) -> go.Figure:
    figure = new_figure("Confusion matrix", "predicted class", "true class")
    few = len(names) <= 20
    figure.add_heatmap(
        z=100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1),
        x=names,
        y=names,
        customdata=matrix,
        colorscale="Cividis",
        zmin=0,
        zmax=100,
        texttemplate="%{customdata}" if few else None,
        colorbar={"title": {"text": "of the class (%)"}},
        hovertemplate="%{y} taken for %{x}: %{customdata} images, %{z:.1f} %<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(height=560 if few else 800)
    return figure


def _class_accuracy(accuracy: Sequence[float | None], names: Sequence[str]) -> go.Figure:
    order = sorted(range(len(names)), key=lambda i: accuracy[i] or 0.0)
    values = percent(accuracy[i] for i in order)
    figure = new_figure("Accuracy of each class", "accuracy (%)", "class")
    figure.add_bar(
        x=values,
        y=[names[i] for i in order],
        orientation="h",
        marker_color=BLUE,
        text=["" if value is None else f"{value:.1f}" for value in values],
        textposition="inside",
    )
    figure.update_xaxes(range=[0, 100])
    figure.update_layout(height=140 + 24 * max(4, len(names)), margin={"l": 8})
    return figure

"""The report's figures, by plotly: each function draws what `facts` has found, and decides nothing.

Colours are Okabe and Ito's (2008), which the colour-blind tell apart, the blue lighter for dark pages; shape or dash says the
same again. Backgrounds are left to the page, which is light or dark.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from nas.report.facts import Importance, SharePoint, TimeShare
from nas.report.record import Reference
from nas.report.words import capitalised, count_text, number_text
from nas.runs.record import RunRecord
from nas.runs.statistics import Spread
from nas.study.trials import TrialRecord
from nas.train.checkpoint import EpochMetrics

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#1B87C9", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#8A8F98"
OUTCOME_STYLES: dict[str, tuple[str, str, str]] = {
    "trained": ("completed", BLUE, "circle"),
    "pruned_early": ("pruned early", GREY, "circle-open"),
    "diverged": ("diverged", RED, "x"),
    "failed": ("failed", RED, "x-thin-open"),
    "running": ("not ended", GREEN, "circle-dot"),
    "finalist": ("finalists, trained again", PURPLE, "square"),
}
"""By outcome: what the legend says, the colour, the marker."""
RAMP = [[0.0, BLUE], [0.5, GREY], [1.0, ORANGE]]  # from low to high, of lines that have to be seen on light and on dark


LEAST_SHARE = 0.005  # of the importance, for a bar
MOST_TICKS = 9  # of an axis of parallel coordinates; with more values it is continuous
FEW = 10  # networks or epochs, so that each has a tick
CHARACTER = 7  # pixels of a tick's label


def _figure(title: str, x: str, y: str, *, counted: int = 0, **layout: Any) -> go.Figure:
    """Of a title and axes with their units, which no figure goes without. `counted`: networks or epochs along x."""
    figure = go.Figure()
    figure.update_layout(
        title=_heading(title),
        margin={"l": 64, "r": 16, "t": 48, "b": 56},
        height=420,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0},
        hoverlabel={"namelength": -1},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY},
        **layout,
    )
    step = 1 if 0 < counted <= FEW else None  # plotly would number halves of them
    figure.update_xaxes(title={"text": x, "standoff": 8}, dtick=step, showline=True, zeroline=False, automargin=True)
    figure.update_yaxes(title_text=y, showline=True, zeroline=False, automargin=True)
    return figure


def _heading(title: str) -> dict[str, Any]:
    """Where the caption begins, too: there is room for it on a phone."""
    return {"text": title, "x": 0, "xref": "container", "pad": {"l": 2}, "font": {"size": 16}}


def percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _about(row: TrialRecord) -> str:
    cost = "" if row.params is None else f"{row.params:,} parameters"
    return f"trial {row.number}<br>{row.architecture or ''}<br>{cost}"


# ------------------------------------------------------------------------------------------------------ the search


def draw_history(points: Sequence[tuple[TrialRecord, float | None]], metric: str = "accuracy") -> go.Figure:
    """Trials in the order of their ends, each with the best so far."""
    figure = _figure("Best so far", "networks trained", f"validation {metric} (%)", counted=len(points))
    for outcome in ("pruned_early", "diverged", "trained"):
        name, colour, symbol = OUTCOME_STYLES[outcome]
        chosen = [(place, one) for place, (one, _) in enumerate(points, 1) if one.outcome == outcome]
        if chosen:
            figure.add_scatter(
                x=[place for place, _ in chosen],
                y=[percent(one.accuracy) for _, one in chosen],
                text=[f"trial {one.number}" for _, one in chosen],
                mode="markers",
                name=name,
                marker={"color": colour, "symbol": symbol, "size": 7},
            )
    figure.add_scatter(
        x=list(range(1, len(points) + 1)),
        y=[percent(best) for _, best in points],
        mode="lines",
        name="best so far",
        line={"color": ORANGE, "width": 3, "shape": "hv"},
    )
    return figure


COSTS = {"params": ("parameters", "parameters"), "macs": ("multiply-adds of one image", "multiply-adds")}
"""By the field of a trial: the axis, and the word in the title."""


def draw_costs(
    cost: str,
    trials: Sequence[TrialRecord],
    front: Sequence[TrialRecord],
    best: TrialRecord | None,
    retrained: RunRecord | None,
    references: Sequence[Reference],
    limit: float | None,
    metric: str = "accuracy",
) -> go.Figure:
    """What networks are judged by against a cost: `trials` ran to their end, `retrained` has a score on test images."""
    axis, word = COSTS[cost]
    figure = _figure(f"{capitalised(metric)} against {word}", axis, f"{metric} (%)")

    def add(drawn: Sequence[Any], about: Callable[[Any], str], name: str, mode: str = "markers", **style: Any) -> None:
        if drawn:
            x, y = [float(getattr(one, cost)) for one in drawn], [percent(one.accuracy) for one in drawn]
            figure.add_scatter(x=x, y=y, text=[about(one) for one in drawn], mode=mode, name=name, **style)

    outlined = {"line": {"width": 1, "color": "#000000"}}
    add(trials, _about, "completed (validation)", marker={"color": BLUE, "size": 7, "opacity": 0.8})
    step = {"line": {"color": GREEN, "width": 2, "shape": "hv"}, "marker": {"symbol": "diamond", "size": 8}}
    good = "accurate" if metric == "accuracy" else "good"
    add(front, _about, f"front: none that cost less was as {good}", mode="lines+markers", **step)
    if best is not None:
        star = {"color": ORANGE, "symbol": "star", "size": 16, **outlined}
        add([best], _about, f"the best, trial {best.number}", marker=star)
    if retrained is not None:
        x, y = [float(getattr(retrained.card, cost))], [percent(retrained.test_score)]
        square = {"color": PURPLE, "symbol": "square", "size": 11, **outlined}
        figure.add_scatter(x=x, y=y, mode="markers", name="the retrained network (test)", marker=square)
    triangle = {"color": RED, "symbol": "triangle-up", "size": 9}
    reported = "reported by others, by longer trainings"
    add(references, lambda one: f"{one.name}<br>reported on {one.measured_on}", reported, marker=triangle)
    shown = [cost for trace in figure.data for cost in trace.x] + ([] if limit is None else [limit])
    low, high = min(shown), max(shown)
    logarithmic = low > 0 and high > LEAST_SPAN * low
    if logarithmic:
        ticks = _log_ticks(low, high)
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[count_text(tick) for tick in ticks])
    else:
        figure.update_xaxes(tickformat="~s")
    if limit is not None:
        figure.add_vline(x=limit, line={"dash": "dash", "color": GREY})
        # On a logarithmic axis a text stands by the logarithm, though a line does not.
        place = math.log10(limit) if logarithmic else limit
        figure.add_annotation(x=place, y=0, yref="paper", xanchor="right", yanchor="bottom", text="budget ", showarrow=False)
    return figure


LEAST_SPAN = 3  # between the lowest and the highest cost, for a logarithmic axis


def _log_ticks(low: float, high: float) -> list[int]:
    """Round numbers from below `low` to above `high`, not more than a phone has room for."""
    digits = next((digits for span, digits in ((12, (1, 2, 3, 5, 7)), (300, (1, 2, 5))) if high < span * low), (1,))
    return [
        digit * 10**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for digit in digits
    ]


def draw_curves(
    trials: Sequence[TrialRecord], finals: Sequence[TrialRecord], best: int | None, metric: str = "accuracy"
) -> go.Figure:
    """Every learning curve, the pruned ones faded: one trace a kind, so that a thousand are drawn as quickly as one. Where a
    training was cut off there is a dot, for after one epoch there is no line."""
    epochs = max((epoch for one in [*trials, *finals] for epoch in one.curve), default=0)
    figure = _figure("Learning curves", "epoch", f"validation {metric} (%)", counted=epochs, hovermode="closest")
    kinds = {"pruned_early": (0.5, 1), "failed": (0.7, 1), "diverged": (0.7, 1), "running": (0.9, 1.5), "trained": (0.7, 1.5)}
    chosen = {kind: [one for one in trials if one.curve and one.outcome == kind and one.number != best] for kind in kinds}
    for outcome, (opacity, width) in {**kinds, "finalist": (0.9, 1.5)}.items():
        drawn = [one for one in finals if one.curve] if outcome == "finalist" else chosen[outcome]
        if drawn:
            name, colour, _ = OUTCOME_STYLES[outcome]
            strung = _strung(drawn)
            ends = {}
            if outcome not in ("trained", "finalist"):
                pairs = zip(strung["x"], [*strung["x"][1:], None], strict=True)
                sizes = [5 if here is not None and following is None else 0 for here, following in pairs]
                ends = {"mode": "lines+markers", "marker": {"color": colour, "size": sizes, "line": {"width": 0}}}
            line = {"color": colour, "width": width}
            figure.add_scatter(**strung, **({"mode": "lines"} | ends), name=name, opacity=opacity, line=line)
    for one in trials:
        if one.number == best and one.curve:
            line = {"color": ORANGE, "width": 3}
            figure.add_scatter(**_strung([one]), mode="lines+markers", name=f"the best, trial {best}", line=line)
    return figure


def _strung(trials: Sequence[TrialRecord]) -> dict[str, list[Any]]:
    """Many curves as one, with gaps between them."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str | None] = []
    for one in trials:
        x += [*one.curve, None]
        y += [*(percent(value) for value in one.curve.values()), None]
        text += [f"trial {one.number if one.finalist is None else one.finalist}"] * len(one.curve) + [None]
    return {"x": x, "y": y, "text": text}


def draw_importance(found: Importance, metric: str = "accuracy") -> go.Figure:
    slots = [slot for slot, share in found.slots.items() if share >= LEAST_SHARE][:20][::-1]
    figure = _figure(f"What mattered for the {metric}", "importance (%)", "parameter")
    figure.add_bar(x=[percent(found.slots[slot]) for slot in slots], y=slots, orientation="h", marker_color=BLUE)
    figure.update_layout(height=120 + 24 * max(4, len(slots)), margin={"l": 8})
    return figure


def draw_parallel(columns: dict[str, list[Any]], values: Sequence[float], metric: str = "accuracy") -> go.Figure:
    """One line a network, coloured by what it is taken to reach. A value that a network lacks is None."""
    figure = go.Figure()
    shown = [100 * value for value in values]
    axes = [_dimension(name, column) for name, column in columns.items()]
    figure.add_parcoords(
        line={"color": shown, "colorscale": RAMP, "showscale": True, "colorbar": {"title": {"text": f"expected {metric} (%)"}}},
        dimensions=[
            *axes,
            {"label": f"expected {metric} (%)", "values": shown, "tickformat": ".3~r"},
        ],
        labelangle=-30,
        labelside="bottom",
        unselected={"line": {"opacity": 0.05}},
    )
    figure.update_layout(
        title=_heading("Networks as lines through their parameters"),
        # The axis' name, which is slanted, reaches as far to the left as it is long.
        margin={"l": 16 + CHARACTER * max(map(len, [axes[0]["label"], *axes[0]["ticktext"]])), "r": 20, "t": 70, "b": 110},
        height=520,
        paper_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12},
    )
    return figure


def _dimension(name: str, values: list[Any]) -> dict[str, Any]:
    """Words, few numbers, and what a network lacks become places with a tick each; many numbers an axis."""
    present = [value for value in values if value is not None]
    words = any(isinstance(value, str | bool) for value in present)
    order = sorted({str(value) for value in present}) if words else sorted(set(present))
    if words or len(order) <= MOST_TICKS:
        places = {value: i for i, value in enumerate(order)}
        lacking = [-1] if None in values else []
        return {
            "label": name,
            "values": [-1 if value is None else places[str(value) if words else value] for value in values],
            "tickvals": [*lacking, *range(len(order))],
            "ticktext": [
                *("none" for _ in lacking),
                *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in order),
            ],
        }
    # Numbers between which there are orders of magnitude stand by their logarithm.
    low, high = float(order[0]), float(order[-1])
    logarithmic = low > 0 and high > 4 * low and any(isinstance(value, float) for value in order)
    scale = math.log10 if logarithmic else float
    ends = [scale(low), scale(high)]
    ticks = np.linspace(ends[0], ends[1], 5)
    return {
        "label": name,
        "values": [ends[0] if value is None else scale(value) for value in values],
        "tickvals": ticks.tolist(),
        "ticktext": [f"{10**tick if logarithmic else tick:.2g}" for tick in ticks],
    }


def draw_time(shares: Sequence[TimeShare]) -> go.Figure:
    """Horizontal bars: hours, or minutes where there are few."""
    longest = max((one.seconds for one in shares), default=0.0)
    unit, size = ("hours", 3600) if longest > 2 * 3600 else ("minutes", 60) if longest > 120 else ("seconds", 1)
    figure = _figure("Where the workers' time went", f"worker time ({unit})", "outcome")
    counts = [f"{number_text(one.trainings, 'training')}, {number_text(one.epochs, 'epoch')}" for one in shares]
    figure.add_bar(
        x=[one.seconds / size for one in shares],
        y=[f"{OUTCOME_STYLES[one.what][0]}<br>{count}" for one, count in zip(shares, counts, strict=True)],
        orientation="h",
        marker_color=[OUTCOME_STYLES[one.what][1] for one in shares],
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(height=140 + 44 * max(2, len(shares)), margin={"l": 8}, showlegend=False)
    return figure


def draw_over_budget(points: Sequence[SharePoint], window: int) -> go.Figure:
    figure = _figure("Draws over budget, never trained", "draw", "share over budget (%)")
    x = [point.draw for point in points]
    figure.add_scatter(
        x=x, y=[percent(p.window) for p in points], mode="lines", name=f"of the last {window} draws", line={"color": BLUE}
    )
    figure.add_scatter(
        x=x, y=[percent(p.overall) for p in points], mode="lines", name="of all so far", line={"color": ORANGE, "dash": "dash"}
    )
    figure.update_yaxes(range=[0, 100])
    return figure


# ---------------------------------------------------------------------------------------------- a retrained network


RETRAINING = {
    "loss": ("cross-entropy (nats an image)", 1.0, "train_loss", "ema_val_loss"),
    "accuracy": ("accuracy (%)", 100.0, "train_accuracy", "ema_val_accuracy"),
}
"""What is shown of the epochs: the axis, by what values are multiplied, the fields of the training and of the validation."""


def draw_retraining(curve: Sequence[EpochMetrics], what: str) -> go.Figure:
    axis, factor, *names = RETRAINING[what]
    figure = _figure(f"Retraining: {what}", "epoch", axis, counted=len(curve))
    for name, label, colour in zip(names, ("training", "validation"), (BLUE, ORANGE), strict=True):
        values = [getattr(metrics, name) for metrics in curve]
        if any(value is not None for value in values):
            y = [None if value is None else factor * value for value in values]
            line = {"color": colour, "width": 2}
            figure.add_scatter(x=[metrics.epoch for metrics in curve], y=y, mode="lines", name=label, line=line)
    figure.update_layout(showlegend=True)
    return figure


def draw_differences(labels: Sequence[str], differences: Sequence[Spread], base: str, title: str) -> go.Figure:
    """Of scores to `base`, the first on top: the mean with its interval, and a dot a seed."""
    figure = _figure(title, f"difference to {base} (points)", "", hovermode="closest")
    places = list(range(len(labels)))
    figure.add_scatter(
        x=[100 * value for one in differences for value in one.values],
        y=[place for place, one in zip(places, differences, strict=True) for _ in one.values],
        mode="markers",
        name="one seed",
        marker={"color": GREY, "size": 6, "opacity": 0.7},
        hovertemplate="%{x:+.2f} points<extra>one seed</extra>",
    )
    halves = [None if one.interval is None else 100 * (one.interval[1] - one.mean) for one in differences]
    figure.add_scatter(
        x=[100 * one.mean for one in differences],
        y=places,
        error_x={"type": "data", "array": [half or 0.0 for half in halves], "color": BLUE, "thickness": 2, "width": 5},
        customdata=["" if half is None else f" ± {half:.2f}" for half in halves],
        mode="markers",
        name="mean, with its 95 % interval" if any(half is not None for half in halves) else "mean",
        marker={"color": BLUE, "symbol": "diamond", "size": 10},
        hovertemplate="%{y}: %{x:+.2f}%{customdata} points<extra></extra>",
    )
    figure.add_vline(x=0, line={"dash": "dash", "color": GREY})
    names = [escape(label) for label in labels]
    figure.update_yaxes(tickvals=places, ticktext=names, range=[len(labels) - 0.5, -0.5], title_text=None)
    figure.update_layout(height=170 + 34 * max(2, len(labels)), legend={"y": -70 / (34 * max(2, len(labels)))}, margin={"l": 8})
    return figure


def draw_confusion(matrix: np.ndarray, classes: Sequence[str]) -> go.Figure:
    figure = _figure("What was taken for what", "predicted class", "true class")
    share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    names = [escape(name) for name in classes]  # plotly reads some tags
    few = len(classes) <= 20
    figure.add_heatmap(
        z=share,
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


def draw_class_accuracy(accuracy: Sequence[float | None], classes: Sequence[str]) -> go.Figure:
    order = sorted(range(len(classes)), key=lambda i: accuracy[i] or 0.0)
    figure = _figure("Accuracy of each class", "accuracy (%)", "class")
    values = [percent(accuracy[i]) for i in order]
    figure.add_bar(
        x=values,
        y=[escape(classes[i]) for i in order],
        orientation="h",
        marker_color=BLUE,
        text=["" if value is None else f"{value:.1f}" for value in values],
        textposition="inside",
    )
    figure.update_xaxes(range=[0, 100])
    figure.update_layout(height=140 + 24 * max(4, len(classes)), margin={"l": 8})
    return figure

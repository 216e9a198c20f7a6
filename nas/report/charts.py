"""The figures of a study, by plotly, each with the sentence under it: the same for the page, a paper and the dashboard.

Colours are Okabe and Ito's (2008), which the colour-blind tell apart, the blue lighter for dark pages; shape or dash says the
same again. Backgrounds are left to the page, which is light or dark.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from nas.config import LIMIT_NAMES
from nas.report import facts
from nas.report.compare import accuracy_front, trained_rows
from nas.report.record import FullRecord
from nas.report.words import capitalised, count_text, number_text, outcome_text
from nas.study.settings import PRESETS_SPACE
from nas.study.trials import TrialRecord

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#1B87C9", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#8A8F98"
OUTCOMES = {
    "pruned_early": (GREY, 0.5, 1),
    "failed": (RED, 0.7, 1),
    "diverged": (RED, 0.7, 1),
    "running": (GREEN, 0.9, 1.5),
    "trained": (BLUE, 0.7, 1.5),
    "finalist": (PURPLE, 0.9, 1.5),
}
"""The colour, and of learning curves the opacity and the width; the last is drawn over all others."""
RAMP = [[0.0, BLUE], [0.5, GREY], [1.0, ORANGE]]  # from low to high, of lines that have to be seen on light and on dark

WINDOW = 20  # draws
NEAR = 2  # times the cost of the most expensive network, or of the budget: what is farther would squeeze the study into a corner
LEAST_SPAN = 3  # between the lowest and the highest cost, for a logarithmic axis
LEAST_SHARE, MOST_BARS = 0.005, 20  # of the importance, for a bar
MOST_AXES = 10  # of parallel coordinates
MOST_TICKS = 9  # of one of these axes; with more values it is continuous
FEW = 10  # networks or epochs, so that each has a tick
CHARACTER = 7  # pixels of a tick's label


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
    search = _history(record), *cost_charts(record), _curves(record), _importance(record), _parallel(record)
    return [chart for chart in (*search, _time(record), _over_budget(record)) if chart is not None]


def cost_charts(record: FullRecord) -> list[Chart]:
    """Accuracy against parameters and against multiply-adds: what optuna-dashboard has no plot of."""
    axes = {"params": "parameters", "macs": "MACs of one image"}
    return [chart for cost, axis in axes.items() if (chart := _costs(record, cost, axis)) is not None]


def new_figure(title: str, x: str, y: str, *, counted: int = 0, **layout: Any) -> go.Figure:
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


def percent(shares: Iterable[float | None]) -> list[float | None]:
    return [None if share is None else 100 * share for share in shares]


def _history(record: FullRecord) -> Chart | None:
    points = facts.history(record.trials)
    if not points:
        return None
    figure = new_figure("Best so far", "networks trained", f"validation {record.metric} (%)", counted=len(points))
    for outcome, symbol in (("pruned_early", "circle-open"), ("diverged", "x"), ("trained", "circle")):
        shown = {place: one for place, (one, _) in enumerate(points, 1) if one.outcome == outcome}
        if shown:
            figure.add_scatter(
                x=list(shown),
                y=percent(one.accuracy for one in shown.values()),
                text=[f"trial {one.number}" for one in shown.values()],
                mode="markers",
                name=outcome_text(outcome),
                marker={"color": OUTCOMES[outcome][0], "symbol": symbol, "size": 7},
            )
    best, line = percent(best for _, best in points), {"color": ORANGE, "width": 3, "shape": "hv"}
    figure.add_scatter(x=list(range(1, len(points) + 1)), y=best, mode="lines", name="best so far", line=line)
    caption = (
        f"Validation {record.metric} of every trained network after its last epoch, in the order in which they finished; "
        "the line is the best completed trial so far."
    )
    return Chart("history", caption, figure)


def _costs(record: FullRecord, cost: str, axis: str) -> Chart | None:
    """What networks are judged by against a field of theirs."""
    trials = [one for one in trained_rows(record.trials) if getattr(one, cost) is not None]
    if not trials:
        return None
    metric, limit = record.metric, getattr(record.settings.budget, cost)
    # What others reported is their accuracy, which stands beside no other metric.
    known = record.references if metric == "accuracy" else []
    farthest = NEAR * max(limit or 0, *(getattr(one, cost) for one in trials))
    references = [one for one in known if getattr(one, cost) <= farthest]
    front = accuracy_front(trials, cost)
    best = [one for one in trials if record.best is not None and one.number == record.best.number]
    figure = new_figure(f"{capitalised(metric)} against {LIMIT_NAMES[cost]}", axis, f"{metric} (%)")

    def add(drawn: Sequence[Any], about: Callable[[Any], str], name: str, marker: dict[str, Any], **line: Any) -> None:
        if drawn:
            x, y = [float(getattr(one, cost)) for one in drawn], percent(one.accuracy for one in drawn)
            text, mode = [about(one) for one in drawn], "lines+markers" if line else "markers"
            figure.add_scatter(x=x, y=y, text=text, mode=mode, name=name, marker=marker, **line)

    outlined = {"line": {"width": 1, "color": "#000000"}}
    add(trials, _about, "completed (validation)", {"color": BLUE, "size": 7, "opacity": 0.8})
    good = "accurate" if metric == "accuracy" else "good"
    step = {"color": GREEN, "width": 2, "shape": "hv"}
    add(front, _about, f"Pareto front: no cheaper network was as {good}", {"symbol": "diamond", "size": 8}, line=step)
    if best:
        add(best, _about, f"the best, trial {best[0].number}", {"color": ORANGE, "symbol": "star", "size": 16, **outlined})
    if (run := record.chosen_run) is not None and run.test_score is not None:
        x, y = [float(getattr(run.card, cost))], percent([run.test_score])
        square = {"color": PURPLE, "symbol": "square", "size": 11, **outlined}
        figure.add_scatter(x=x, y=y, mode="markers", name="retrained network (test)", marker=square)
    triangle, reported = {"color": RED, "symbol": "triangle-up", "size": 9}, "reported by others after longer training"
    add(references, lambda one: f"{one.name}<br>reported on {one.measured_on}", reported, triangle)
    _mark_costs(figure, limit)
    caption = f"Completed trials. The step line is the Pareto front: no cheaper network was as {good}."
    if references:
        caption += (
            " Triangles were reported by others after full training, some on test images: compare them with a retrained "
            "network, not with the short trainings of the search."
        )
    elif known:
        least = count_text(min(getattr(one, cost) for one in known))
        caption += f" The networks reported by others are outside this picture: they have at least {least} {LIMIT_NAMES[cost]}."
    return Chart(f"accuracy-{cost}", caption, figure)


def _about(row: TrialRecord) -> str:
    cost = "" if row.params is None else f"{row.params:,} parameters"
    return f"trial {row.number}<br>{row.architecture or ''}<br>{cost}"


def _mark_costs(figure: go.Figure, limit: float | None) -> None:
    """The scale of x, and the budget."""
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


def _log_ticks(low: float, high: float) -> list[int]:
    """Round numbers from below `low` to above `high`, not more than a phone has room for."""
    digits = next((digits for span, digits in ((12, (1, 2, 3, 5, 7)), (300, (1, 2, 5))) if high < span * low), (1,))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [digit * 10**power for power in powers for digit in digits]


def _curves(record: FullRecord) -> Chart | None:
    """Every learning curve: one trace a kind, so that a thousand are drawn as quickly as one. Where a training was cut off there
    is a dot, for after one epoch there is no line."""
    if not any(one.curve for one in record.trials):
        return None
    best = None if record.best is None else record.best.number
    trials, finals = [[one for one in rows if one.curve] for rows in (record.trials, record.finals)]
    epochs = max(epoch for one in [*trials, *finals] for epoch in one.curve)
    figure = new_figure("Learning curves", "epoch", f"validation {record.metric} (%)", counted=epochs, hovermode="closest")
    for outcome, (colour, opacity, width) in OUTCOMES.items():
        others = [one for one in trials if one.outcome == outcome and one.number != best]
        if drawn := finals if outcome == "finalist" else others:
            how: dict[str, Any] = {"mode": "lines"}
            if outcome not in ("trained", "finalist"):
                sizes = [size for one in drawn for size in (*[0] * (len(one.curve) - 1), 5, 0)]
                how = {"mode": "lines+markers", "marker": {"color": colour, "size": sizes, "line": {"width": 0}}}
            line = {"color": colour, "width": width}
            figure.add_scatter(**_strung(drawn), **how, name=outcome_text(outcome), opacity=opacity, line=line)
    if drawn := [one for one in trials if one.number == best and one.outcome != "duplicate"]:
        line = {"color": ORANGE, "width": 3}
        figure.add_scatter(**_strung(drawn), mode="lines+markers", name=f"the best, trial {best}", line=line)
    caption = f"Validation {record.metric} of the averaged weights after each epoch"
    if any(one.outcome == "pruned_early" for one in record.trials):
        caption += "; pruned trials are faded, and end with a dot"
    return Chart("curves", f"{caption}.", figure)


def _strung(trials: Sequence[TrialRecord]) -> dict[str, list[Any]]:
    """Many curves as one, with gaps between them."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str | None] = []
    for one in trials:
        x += [*one.curve, None]
        y += [*percent(one.curve.values()), None]
        text += [f"trial {one.number if one.finalist is None else one.finalist}"] * len(one.curve) + [None]
    return {"x": x, "y": y, "text": text}


def _importance(record: FullRecord) -> Chart | None:
    found = record.importance
    if found is None or not found.slots:
        return None
    slots = [slot for slot, share in found.slots.items() if share >= LEAST_SHARE][:MOST_BARS][::-1]
    figure = new_figure(f"Importance of the parameters for the {record.metric}", "importance (%)", "parameter")
    figure.add_bar(x=percent(found.slots[slot] for slot in slots), y=slots, orientation="h", marker_color=BLUE)
    figure.update_layout(height=120 + 24 * max(4, len(slots)), margin={"l": 8})
    caption = (
        f"A random forest predicts the final or expected {record.metric} of {found.networks} networks. The importance of a "
        f"parameter is how much worse it predicts held-out networks if the parameter's values are shuffled. The forest explains "
        f"{max(found.explained, 0.0):.0%} of the variance"
        + ("." if found.explained >= 0.1 else ", too little to trust the order.")
    )
    if any(share < LEAST_SHARE for share in found.slots.values()):
        caption += f" Parameters below {LEAST_SHARE:.1%} are left out."
    return Chart("importance", caption, figure)


def _parallel(record: FullRecord) -> Chart | None:
    """One line a network, coloured by what it is taken to reach."""
    known = facts.comparable(record.trials)
    columns, which = facts.by_slot(known), ""
    if len(known) < 2 or not columns:
        return None
    if len(columns) > MOST_AXES:
        order = list(columns)
        which = f"The first {MOST_AXES} of {len(columns)} parameters; there are too few networks to tell which are important. "
        if record.importance is not None:
            order = [slot for slot in record.importance.slots if slot in columns]
            which = f"The {MOST_AXES} most important parameters. "
        columns = {slot: columns[slot] for slot in order[:MOST_AXES]}
    caption = which + (
        "A line is a network; drag along an axis to select networks. For a pruned trial the value is an estimate from what other "
        "trials gained after the same epoch; “none” means that a network has no such stage."
    )
    reached, word = [100 * (one.projected or 0.0) for one in known], f"expected {record.metric} (%)"
    axes = [_dimension(name, column) for name, column in columns.items()]
    figure = go.Figure()
    figure.add_parcoords(
        line={"color": reached, "colorscale": RAMP, "showscale": True, "colorbar": {"title": {"text": word}}},
        dimensions=[*axes, {"label": word, "values": reached, "tickformat": ".3~r"}],
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
    return Chart("parallel", caption, figure, wide=True)


def _dimension(name: str, values: list[Any]) -> dict[str, Any]:
    """Words, few numbers, and what a network lacks (None) become places with a tick each; many numbers an axis."""
    present = [value for value in values if value is not None]
    words = any(isinstance(value, str | bool) for value in present)
    order = sorted({str(value) for value in present}) if words else sorted(set(present))
    if words or len(order) <= MOST_TICKS:
        places = {value: i for i, value in enumerate(order)}
        ticks = {i: f"{value:.3g}" if isinstance(value, float) else str(value) for value, i in places.items()}
        if None in values:
            ticks = {-1: "none", **ticks}
        at: list[float] = [-1 if value is None else places[str(value) if words else value] for value in values]
    else:  # numbers between which there are orders of magnitude stand by their logarithm
        low, high = float(order[0]), float(order[-1])
        logarithmic = low > 0 and high > 4 * low and any(isinstance(value, float) for value in order)
        scale = math.log10 if logarithmic else float
        steps = np.linspace(scale(low), scale(high), 5).tolist()
        ticks = {step: f"{10**step if logarithmic else step:.2g}" for step in steps}
        at = [scale(low if value is None else value) for value in values]
    return {"label": name, "values": at, "tickvals": list(ticks), "ticktext": list(ticks.values())}


def _time(record: FullRecord) -> Chart | None:
    """Horizontal bars: hours, or minutes where there are few."""
    shares = facts.time_spent(record.trials, record.finals)
    if not shares:
        return None
    longest = max(one.seconds for one in shares)
    unit, size = ("hours", 3600) if longest > 2 * 3600 else ("minutes", 60) if longest > 120 else ("seconds", 1)
    figure = new_figure("How the workers spent their time", f"worker time ({unit})", "outcome")
    bought = [f"{number_text(one.trainings, 'training')}, {number_text(one.epochs, 'epoch')}" for one in shares]
    figure.add_bar(
        x=[one.seconds / size for one in shares],
        y=[f"{outcome_text(one.what)}<br>{text}" for one, text in zip(shares, bought, strict=True)],
        orientation="h",
        marker_color=[OUTCOMES[one.what][0] for one in shares],
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(height=140 + 44 * max(2, len(shares)), margin={"l": 8}, showlegend=False)
    return Chart("time", "Time of training and evaluation, summed over the workers, by outcome.", figure)


def _over_budget(record: FullRecord) -> Chart | None:
    points = facts.over_budget_share(record.trials, WINDOW)
    if len(points) < 2:
        return None
    figure = new_figure("Candidates over budget, not trained", "candidate", "share over budget (%)")
    lines = {f"of the last {WINDOW} candidates": {"color": BLUE}, "of all candidates so far": {"color": ORANGE, "dash": "dash"}}
    for (name, line), shares in zip(lines.items(), zip(*points, strict=True), strict=True):
        figure.add_scatter(x=list(range(1, len(points) + 1)), y=percent(shares), mode="lines", name=name, line=line)
    figure.update_yaxes(range=[0, 100])
    caption = "Share of candidates over budget; they are counted, not trained. A good sampler learns to avoid them."
    return Chart("over-budget", caption, figure)

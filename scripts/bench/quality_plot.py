"""Best so far against epochs spent, with bands over seeds: an HTML page, and a PNG where a browser is at hand."""

from pathlib import Path
from typing import Any

import common
import numpy as np
from plotly.subplots import make_subplots

PALETTE = [
    "#000000",
    "#999999",
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#56B4E9",
    "#F0E442",
    "#7F3C8D",
    "#11A579",
]
"""Okabe and Ito's, which the colour-blind tell apart, and two more."""
POINTS = 120


def bands(runs: list[dict[str, Any]], grid: np.ndarray) -> np.ndarray:
    """(3, points): lower quartile, median and upper quartile of the best so far; NaN before anything has run to its end."""
    curves = []
    for run in runs:
        place = np.searchsorted(run["spent"], grid, side="right") - 1
        best = np.array([0.0, *run["best"]])[place + 1]
        curves.append(np.where(best > 0, best, np.nan))
    table = np.array(curves)
    enough = np.isfinite(table).mean(0) > 0.5
    return np.where(enough, np.nanquantile(np.where(np.isfinite(table), table, 0.0), [0.25, 0.5, 0.75], axis=0), np.nan)


def draw_plots(results: dict[str, Any], target: float, aim: float, folder: Path) -> None:
    figure = make_subplots(
        rows=1,
        cols=2,
        subplot_titles=("Pruners, replayed on the recorded table", "Searches, in the world of the regression"),
        horizontal_spacing=0.08,
    )
    names = list(dict.fromkeys([*results["pruners"], *results["searches"]]))
    for column, (part, wanted) in enumerate((("pruners", target), ("searches", aim)), 1):
        longest = max(run["spent"][-1] for runs in results[part].values() for run in runs)
        longest = longest if part == "pruners" else min(longest, 1.5 * results["epochs"])
        grid = np.linspace(0, longest, POINTS)
        for name, runs in results[part].items():
            low, middle, high = 100 * bands(runs, grid)
            colour = PALETTE[names.index(name) % len(PALETTE)]
            dash = "dot" if name in ("none", "random, none", "Optuna's default", "Optuna's defaults") else "solid"
            group = {"legendgroup": f"{part} {name}", "legend": "legend" if column == 1 else "legend2"}
            seen = np.isfinite(middle)
            around = {"x": [*grid[seen], *grid[seen][::-1]], "y": [*high[seen], *low[seen][::-1]]}
            figure.add_scatter(
                **around, fill="toself", fillcolor=colour, opacity=0.10, line_width=0, showlegend=False, hoverinfo="skip",
                row=1, col=column, **group,
            )  # fmt: skip
            figure.add_scatter(
                x=grid[seen], y=middle[seen], name=f"{name} ({len(runs)} seeds)",
                line={"color": colour, "dash": dash, "width": 2}, row=1, col=column, **group,
            )  # fmt: skip
        figure.add_hline(
            y=100 * wanted,
            line={"dash": "dash", "width": 1},
            annotation_text="half a point below the table's best",
            row=1,
            col=column,
        )
        figure.update_xaxes(title_text="epochs spent", row=1, col=column)
        figure.update_yaxes(title_text="accuracy of the best so far (%)", row=1, col=column)
    table = results["table"]
    figure.update_layout(
        title=f"Best so far: median and quartiles over seeds; {table['networks']} recorded networks of {table['epochs']} epochs",
        template="plotly_white",
        width=1500,
        height=700,
        legend={"x": 0.30, "y": 0.03, "yanchor": "bottom", "bgcolor": "rgba(255,255,255,0.7)"},
        legend2={"x": 0.80, "y": 0.03, "yanchor": "bottom", "bgcolor": "rgba(255,255,255,0.7)"},
    )
    for axis in ("yaxis", "yaxis2"):
        figure.update_layout({axis: {"range": [100 * (min(target, aim) - 0.10), 100 * (max(target, aim) + 0.03)]}})
    figure.write_html(folder / "search-quality.html", include_plotlyjs=True)
    try:
        figure.write_image(folder / "search-quality.png")
    except Exception as error:  # kaleido or its browser is not there
        common.progress(f"no PNG: {str(error).splitlines()[0]}")

"""Accuracy against training compute, from studies/reference/compute.csv: a PNG beside it. Needs a browser, for plotly's images.

python scripts/bench/compute_plot.py
"""

import csv
from pathlib import Path

import plotly.graph_objects as go

TABLE = Path(__file__).parents[2] / "studies" / "reference" / "compute.csv"
STYLES = {
    "published": {"color": "#000000", "symbol": "diamond"},
    "script": {"color": "#E69F00", "symbol": "square"},
    "nas": {"color": "#0072B2", "symbol": "circle"},
}
NAMES = {"published": "published (airbench, A100)", "script": "a script without nas, two CPU cores", "nas": "nas, two CPU cores"}


def main() -> None:
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = go.Figure()
    for by, style in STYLES.items():
        points = [row for row in rows if row["by"] == by]
        figure.add_scatter(
            x=[float(row["pflop"]) for row in points],
            y=[float(row["accuracy"]) for row in points],
            text=[row["name"] if row["images"] == "test" else f"{row['name']} *" for row in points],
            textposition=[row["label"] for row in points],
            textfont={"size": 10},
            mode="lines+markers+text" if by == "published" else "markers+text",
            line={"dash": "dot", "width": 1, "color": style["color"]},
            marker={**style, "size": 9},
            name=NAMES[by],
        )
    ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 3]
    figure.update_xaxes(type="log", title="compute of the final training in PFLOP (6 × MACs × images seen)", tickvals=ticks)
    figure.update_xaxes(range=[-1.4, 0.6])
    figure.update_yaxes(title="test accuracy (%); *: on 5,000 held-out training images", range=[83, 97])
    figure.update_layout(template="plotly_white", width=1100, height=600, legend={"x": 0.65, "y": 0.1})
    figure.update_layout(margin={"l": 60, "r": 20, "t": 20, "b": 60})
    figure.write_image(TABLE.with_suffix(".png"))


if __name__ == "__main__":
    main()

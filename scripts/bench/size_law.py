"""How the error of a trained network depends on its size and on its training compute, fitted to studies/reference/size-law.csv:

    error = a + b × (MACs / 50 M)^-α + c × ((MACs / 50 M)^δ × images / 50,000)^-β,    compute = 6 × MACs × images

Prints the fit with 95 % bootstrap intervals, and the best size for several amounts of compute; draws size-law.png (needs a
browser, for plotly's images). The form is that of J. Hoffmann et al., arXiv 2203.15556, with MACs in place of parameters, and
with δ, since a large network learns more from the same images.

python scripts/bench/size_law.py
"""

import csv
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from scipy.optimize import least_squares

TABLE = Path(__file__).parents[2] / "studies" / "reference" / "size-law.csv"
START = [np.log(0.02), np.log(0.03), 0.5, np.log(0.1), 0.5, 0.3]
COMPUTE = (0.006, 0.01, 0.06, 0.1065, 0.255, 0.51)  # PFLOP; dashed in the figure beyond the trainings of the table
COLOURS = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7"]


def law(fit: np.ndarray, macs: np.ndarray, flop: np.ndarray) -> np.ndarray:
    """Errors in [0, 1] of networks with `macs` MACs after trainings of `flop` operations."""
    images = flop / (6 * macs)
    size = macs / 5e7
    return np.exp(fit[0]) + np.exp(fit[1]) * size ** -fit[2] + np.exp(fit[3]) * (size ** fit[5] * images / 5e4) ** -fit[4]


def fitted(macs: np.ndarray, flop: np.ndarray, error: np.ndarray) -> np.ndarray:
    """log a, log b, α, log c, β, δ: the least sum of a robust loss of the relative errors."""
    return least_squares(lambda fit: np.log(law(fit, macs, flop) / error), START, loss="soft_l1", f_scale=0.05).x


def best_size(fit: np.ndarray, flop: float) -> float:
    """MACs of the network with the least error."""
    sizes = np.geomspace(5e6, 1e9, 2000)
    return float(sizes[law(fit, sizes, np.full_like(sizes, flop)).argmin()])


def main() -> None:
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    macs, flop = (np.array([float(row[name]) for row in rows]) for name in ("macs", "flop"))
    error = 1 - np.array([float(row["accuracy"]) for row in rows])
    fit, draw = fitted(macs, flop, error), np.random.default_rng(0)
    again = []
    for _ in range(300):
        part = draw.integers(len(rows), size=len(rows))
        again.append(fitted(macs[part], flop[part], error[part]))

    def interval(values: list[float]) -> str:
        low, high = np.percentile(values, [2.5, 97.5])
        return f"({low:.3g} to {high:.3g})"

    rms = np.sqrt(np.mean(np.log(law(fit, macs, flop) / error) ** 2))
    print(f"{len(rows)} trainings; root mean square of the relative errors of the fit {rms:.1%}")
    for at, name in enumerate(("a", "b", "alpha", "c", "beta", "delta")):
        values = [float(one[at] if name in ("alpha", "beta", "delta") else np.exp(one[at])) for one in (fit, *again)]
        print(f"{name:6s}{values[0]:8.4f}  {interval(values[1:])}")
    print("\nPFLOP   best size (MACs)            error")
    for pflop in COMPUTE:
        size = best_size(fit, pflop * 1e15)
        sizes = [best_size(one, pflop * 1e15) / 1e6 for one in again]
        least = law(fit, np.array([size]), np.array([pflop * 1e15]))[0]
        print(f"{pflop:<8g}{size / 1e6:5.0f} M {interval(sizes):20s} {least:8.2%}")

    figure, sizes = go.Figure(), np.geomspace(1e7, 4e8, 100)
    for pflop, colour in zip(COMPUTE, COLOURS, strict=True):
        errors = law(fit, sizes, np.full_like(sizes, pflop * 1e15))
        dash = "solid" if pflop * 1e15 <= flop.max() else "dash"
        figure.add_scatter(
            x=sizes / 1e6, y=100 * errors, mode="lines", line={"color": colour, "dash": dash}, name=f"{pflop:g} PFLOP"
        )
        near = np.abs(np.log(flop / (pflop * 1e15))) < 0.1
        figure.add_scatter(
            x=macs[near] / 1e6, y=100 * error[near], mode="markers", marker={"color": colour, "size": 7}, showlegend=False
        )
    figure.update_xaxes(type="log", title="size (million MACs)", tickvals=[10, 20, 50, 100, 200, 400])
    figure.update_yaxes(type="log", title="error on 5,000 images (%)", tickvals=[5, 6, 8, 10, 15, 20, 30, 40])
    figure.update_layout(template="plotly_white", width=1000, height=560, margin={"l": 60, "r": 20, "t": 20, "b": 60})
    figure.write_image(TABLE.with_suffix(".png"))


if __name__ == "__main__":
    main()

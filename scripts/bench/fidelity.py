"""What a short trial says about the final training of the same network: studies/reference/fidelity.csv has every epoch of trials
of 6 TFLOP each, finals.csv the held-out accuracy of some of the same networks after a final training.

Prints Spearman's rank correlation of each score with the final accuracy, with 95 % bootstrap intervals over the networks.

python scripts/bench/fidelity.py
"""

import csv
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

REFERENCE = Path(__file__).parents[2] / "studies" / "reference"
RESAMPLES = 2000


def read(name: str) -> list[dict[str, str]]:
    with (REFERENCE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def correlation(score: np.ndarray, final: np.ndarray) -> str:
    draw = np.random.default_rng(0)
    parts = (draw.integers(len(final), size=len(final)) for _ in range(RESAMPLES))
    low, high = np.nanpercentile([spearmanr(score[part], final[part]).statistic for part in parts if np.ptp(part)], [2.5, 97.5])
    return f"{spearmanr(score, final).statistic:5.2f} ({low:.2f} to {high:.2f})"


def left_out(columns: np.ndarray, final: np.ndarray) -> np.ndarray:
    """The final accuracy of each network, predicted by a linear regression on the others. `columns` (N, scores)."""
    wide, every = np.column_stack([columns, np.ones(len(final))]), np.arange(len(final))
    return np.array([wide[i] @ np.linalg.lstsq(wide[every != i], final[every != i], rcond=None)[0] for i in every])


def main() -> None:
    curves: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in read("fidelity.csv"):
        curves.setdefault((row["seed"], row["trial"]), []).append(row)
    finals = [row for row in read("finals.csv") if (row["seed"], row["trial"]) in curves]
    of = [curves[row["seed"], row["trial"]] for row in finals]
    final = np.array([float(row["accuracy"]) for row in finals])
    macs, params = (np.array([float(curve[0][name]) for curve in of]) for name in ("macs", "params"))
    print(f"{len(finals)} networks, final accuracy {100 * final.min():.2f} to {100 * final.max():.2f} %\n")

    def show(name: str, score: np.ndarray) -> None:
        print(f"{name:58s} {correlation(score, final)}")

    show("MACs", macs)
    show("parameters", params)
    epochs = range(len(of[0]))
    accuracy = np.array([[float(epoch["validation_accuracy"]) for epoch in curve] for curve in of])
    loss = np.array([[float(epoch["train_loss"]) for epoch in curve] for curve in of])
    images = np.array([[float(epoch["flop"]) / (6 * float(epoch["macs"])) for epoch in curve] for curve in of])
    for epoch in epochs:
        show(f"accuracy after {epoch + 1} of {len(epochs)} epochs, equal compute", accuracy[:, epoch])
    for epoch in epochs:
        show(f"training loss of epoch {epoch + 1}, equal compute", -loss[:, epoch])
    same = images[:, -1].min()  # of the largest network at the end of its trial
    at = np.array([np.interp(same, seen, curve) for seen, curve in zip(images, accuracy, strict=True)])
    show(f"accuracy after {same:,.0f} images, equal images", at)
    for epoch in epochs:
        columns = np.column_stack([accuracy[:, epoch], np.log(macs)])
        show(f"accuracy after {epoch + 1} epochs and log MACs, left out", left_out(columns, final))
    weights = np.linalg.lstsq(np.column_stack([accuracy[:, -1], np.log(macs), np.ones(len(final))]), final, rcond=None)[0]
    print(f"\nfinal accuracy = {weights[0]:.3f} × accuracy of the trial + {weights[1]:.4f} × log MACs + constant")


if __name__ == "__main__":
    main()

"""Which compute a short trial needs, by the size of its network, so that trials rank networks as their final trainings do.

studies/reference/finals.csv has the held-out accuracy of networks after final trainings of equal compute, pays-trials.csv the
trials of the same networks. Trials of T0 × (MACs / 130 M)^γ are not run for every γ: the accuracy of a trial is moved along the
mean slope against the logarithm of the compute, which networks with trials of two lengths give.

python scripts/bench/fidelity.py
"""

import csv
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

REFERENCE = Path(__file__).parents[2] / "studies" / "reference"
TRIAL, MOST_MACS = 6e12, 130e6
EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.93, 1.0)  # 0: equal compute; 1: equal images


def read(name: str) -> list[dict[str, str]]:
    with (REFERENCE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    trials: dict[tuple[str, str], dict[float, float]] = {}  # (seed, architecture) → {compute: accuracy} of completed trials
    for row in read("pays-trials.csv"):
        if row["outcome"] == "trained" and row["epochs"] == "6":
            trials.setdefault((row["study"][-1], row["architecture"]), {})[float(row["flop"])] = float(row["accuracy"])
    slopes = []
    for curve in trials.values():
        (short, low), (long, high) = min(curve.items()), max(curve.items())
        if long > 1.1 * short:
            slopes.append((high - low) / np.log(long / short))
    print(f"accuracy per unit of ln(compute): {np.mean(slopes):.3f} ± {np.std(slopes, ddof=1):.3f} ({len(slopes)} networks)")

    finals = [row for row in read("finals.csv") if (row["study"][-1], row["architecture"]) in trials]
    macs, final = (np.array([float(row[name]) for row in finals]) for name in ("macs", "accuracy"))
    flop, accuracy = np.array([max(trials[row["study"][-1], row["architecture"]].items()) for row in finals]).T
    print(f"{len(finals)} networks of {macs.min() / 1e6:.0f} to {macs.max() / 1e6:.0f} M MACs\n")
    print("gamma  rank correlation  chosen: MACs, final accuracy")
    for exponent in EXPONENTS:
        score = accuracy + np.mean(slopes) * np.log(TRIAL * (macs / MOST_MACS) ** exponent / flop)
        best, rank = score.argmax(), spearmanr(score, final).statistic
        print(f"{exponent:5.2f}  {rank:16.2f}  {macs[best] / 1e6:11.0f} M, {100 * final[best]:.2f} %")


if __name__ == "__main__":
    main()

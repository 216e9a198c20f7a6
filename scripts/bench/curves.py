"""The recorded table (`record_curves.py`), and a world made from it in which a search costs nothing.

A world knows what any candidate of the space costs and how it would train: its final accuracy by a regression fitted to the
table, with the luck that a seed has; its curve by that of the most similar recorded network, shifted to that end. Asked twice, a
candidate trains the same.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import CategoricalDistribution
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import KFold

from nas.budget import Cost
from nas.budget.closed_form import closed_form_macs, closed_form_params
from nas.config import ArchConfig, Candidate
from nas.space.space import Space

COLLAPSED = 0.05
"""Share of the networks whose accuracy is raised to that of the next: one that learned nothing would bend the regression, and how
badly it failed matters to no search."""


@dataclass(frozen=True)
class Row:
    """One training."""

    draw: int
    variant: str
    params: int
    macs: int
    values: dict[str, Any]
    train_loss: np.ndarray
    """(epochs,), as the next two."""
    raw: np.ndarray
    """Validation accuracy of the raw weights; empty where it was not recorded."""
    averaged: np.ndarray
    """Of the averaged weights: what a search reports."""
    seconds: np.ndarray

    @property
    def final(self) -> float:
        return float(self.averaged[-1])


def read_table(path: Path) -> list[Row]:
    def series(text: str) -> np.ndarray:
        return np.array([float(value) for value in text.split()])

    with path.open(newline="") as file:
        return [
            Row(
                draw=int(row["draw"]),
                variant=row["variant"],
                params=int(row["params"]),
                macs=int(row["macs"]),
                values=json.loads(row["values"]),
                train_loss=series(row["train_loss"]),
                raw=series(row["val_accuracy"]),
                averaged=series(row["ema_val_accuracy"]),
                seconds=series(row["seconds"]),
            )
            for row in csv.DictReader(file)
        ]


class World:
    """What any candidate costs, and how it would train."""

    def __init__(self, rows: Sequence[Row], space: Space) -> None:
        self.noise = noise_of(rows)
        self.rows = [row for row in rows if row.variant == "own"]
        self.space = space
        self.shape = space.images
        self.epochs = len(self.rows[0].averaged)
        self.slots = {slot.name: slot.domain for slot in space.slots if slot.drawn}
        self._transform = _SearchSpaceTransform(self.slots, transform_0_1=True)
        self.points = np.array([self.point(row.values, row.params, row.macs) for row in self.rows])
        finals = np.array([row.final for row in self.rows])
        self.finals = np.maximum(finals, np.quantile(finals, COLLAPSED))
        self.model = fitted(self.points, self.finals)
        self._cache: dict[str, tuple[np.ndarray, float]] = {}

    def point(self, values: dict[str, Any], params: int, macs: int) -> np.ndarray:
        """(features,), each about in [0, 1]. What a network does not use is set to its middle, so that it tells nothing."""
        stages = values.get("stages", 0)
        used = {
            name: value
            if not (name.startswith("stage") and name[5].isdigit() and int(name[5]) >= stages)
            else middle(self.slots[name])
            for name, value in values.items()
        }
        return np.concatenate([self._transform.transform(used), [np.log(params) / 3 - 3, np.log(macs) / 3 - 5]])

    def check(self, arch: ArchConfig) -> Cost:
        """As `Budget.check` does, in closed form: fvcore would take longer for its multiply-adds than the whole replay."""
        params, macs = closed_form_params(arch, self.shape), closed_form_macs(arch, self.shape)
        limits = self.space.budget
        excess = {}
        if limits.params is not None:
            excess["params"] = params / limits.params - 1
        if limits.macs is not None:
            excess["macs"] = macs / limits.macs - 1
        return Cost(params=params, macs=macs, excess=excess)

    def final(self, points: np.ndarray) -> np.ndarray:
        """(n, features) → (n,)"""
        return self.model.predict(points)

    def training(self, values: dict[str, Any], candidate: Candidate) -> tuple[np.ndarray, float]:
        """(epochs,), validation accuracy after each; and what it would be at the end on average over seeds."""
        key = candidate.digest
        if key not in self._cache:
            cost = self.check(candidate.arch)
            point = self.point(values, cost.params, cost.macs)
            nearest = self.rows[int(np.argmin(((self.points - point) ** 2).sum(1)))]
            truth = float(self.final(point[None])[0])
            luck = self.noise * np.random.default_rng(int(key, 16)).standard_normal()
            curve = np.clip(nearest.averaged + truth + luck - nearest.averaged[-1], 0.01, 1.0)
            self._cache[key] = curve, truth
        return self._cache[key]


USUAL_NOISE = 0.007
"""Where no network was trained by two seeds."""


def noise_of(rows: Sequence[Row]) -> float:
    """Deviation of the final accuracy over seeds, from networks that were trained by two; of the middle half of the differences,
    so that one which collapsed by one seed does not count for all."""
    own = {row.draw: row.final for row in rows if row.variant == "own"}
    differences = [own[row.draw] - row.final for row in rows if row.variant == "again" and row.draw in own]
    if len(differences) < 8:
        return USUAL_NOISE
    low, high = np.quantile(differences, [0.25, 0.75])
    return float((high - low) / 1.349 / np.sqrt(2))


def middle(domain: Any) -> Any:
    if isinstance(domain, CategoricalDistribution):
        return domain.choices[0]
    span = domain.high - domain.low
    return (
        domain.low + (span // 2 // (domain.step or 1)) * (domain.step or 1)
        if isinstance(domain.low, int)
        else domain.low + span / 2
    )


def fitted(points: np.ndarray, finals: np.ndarray) -> GaussianProcessRegressor:
    """A Gaussian process of one length for all features: with a length for each it fits dozens of rows too well."""
    kernel = ConstantKernel(1.0) * RBF(2.0, (0.3, 30.0)) + WhiteKernel(0.1, (1e-2, 1.0))
    return GaussianProcessRegressor(kernel, normalize_y=True, random_state=0).fit(points, finals)


@dataclass(frozen=True)
class Error:
    """Of the regression on rows that it was not fitted to."""

    rmse: float
    """Accuracy, as a share."""
    r2: float
    rank_correlation: float
    n: int


def held_out_error(world: World, folds: int = 10) -> Error:
    from scipy.stats import spearmanr

    predicted = np.zeros_like(world.finals)
    for train, test in KFold(folds, shuffle=True, random_state=0).split(world.points):
        predicted[test] = fitted(world.points[train], world.finals[train]).predict(world.points[test])
    residual = world.finals - predicted
    return Error(
        rmse=float(np.sqrt((residual**2).mean())),
        r2=float(1 - residual.var() / world.finals.var()),
        rank_correlation=float(spearmanr(predicted, world.finals).statistic),
        n=len(world.finals),
    )

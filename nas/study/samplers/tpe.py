"""Tree-structured Parzen estimators, every argument explicit, so that a study does not change when a library's defaults do."""

import math
from typing import Annotated, ClassVar

import numpy as np
import optuna
from optuna.samplers._tpe import _truncnorm
from pydantic import Field
from scipy.special import log_ndtr

from nas.study.samplers.base import Informed

# Optuna computes the logarithm of the normal distribution one number after another, which is half of the time of a draw at 2,000
# trials; a test holds the two against each other.
_truncnorm._log_ndtr = log_ndtr

# Over-budget draws count as start-up trials too; twice Optuna's ten leaves about ten that train.
STARTUP_TRIALS = 20
MOST_GOOD = 25
"""Trials that may count as good, as in Optuna."""


class Tpe(Informed, optuna.samplers.TPESampler):
    """Multivariate TPE; candidates that are being trained count as bad (constant liar), so that parallel draws differ.

    Two things differ from Optuna's, with which a search that prunes got stuck (scripts/bench/README.md). It is told what pruned
    trials are taken to reach: Optuna ranks every complete trial before every pruned one, so that the first to train, which
    nobody could prune, stay good for ever. And it takes the better of few candidates: the best of 24 follows the estimate, which
    is a guess in so many dimensions, wherever it errs.
    """

    constrained: ClassVar[bool] = True

    def __init__(
        self,
        startup_trials: Annotated[int, Field(ge=0)] = STARTUP_TRIALS,
        candidates: Annotated[int, Field(ge=1)] = 2,
        good: Annotated[float, Field(gt=0, lt=1)] = 0.06,
    ) -> None:
        """
        Args:
            startup_trials: drawn uniformly before the first estimate, those over budget among them.
            candidates: drawn from the density of the good trials; the one of best ratio is taken.
            good: share of the trials that count as good.
        """
        super().__init__(
            n_startup_trials=startup_trials,
            n_ei_candidates=candidates,
            multivariate=True,
            group=False,
            constant_liar=True,
        )
        self._gamma = lambda trials: min(math.ceil(good * trials), MOST_GOOD)
        self._names: tuple[str, ...] = ()
        self._rows: dict[int, list[float]] = {}
        """By number, the parameters of each finished trial in TPE's own representation, in the order of `_names`."""

    def seed(self, seed: int) -> None:
        # A new sampler for every draw would be the public way, but it reads every trial again: 0.1 s of 2,000.
        self._rng.rng.seed(seed)
        self._random_sampler._rng.rng.seed(seed)

    def _get_internal_repr(
        self,
        trials: list[optuna.trial.FrozenTrial],
        search_space: dict[str, optuna.distributions.BaseDistribution],
        study: optuna.Study,
    ) -> dict[str, np.ndarray]:
        """As Optuna's, which converts every parameter of every trial anew for each draw: of 2,000 trials that is a fourth of its
        time."""
        if self._names != tuple(search_space):
            self._names, self._rows = tuple(search_space), {}
        rows = []
        for trial in trials:
            row = self._rows.get(trial.number)
            if row is None:
                params = self._get_params(trial, study)
                if not search_space.keys() <= params.keys():
                    continue
                row = [distribution.to_internal_repr(params[name]) for name, distribution in search_space.items()]
                if trial.state.is_finished():
                    self._rows[trial.number] = row
            rows.append(row)
        table = np.asarray(rows, dtype=float).reshape(len(rows), len(search_space))
        return {name: table[:, column] for column, name in enumerate(search_space)}

"""Uniform draws in each range's own scale: what any other sampler has to beat."""

import optuna

from nas.study.samplers.base import SeededSampler


class Random(optuna.samplers.RandomSampler, SeededSampler):
    def __init__(self) -> None:
        super().__init__()

    def seed(self, seed: int) -> None:
        self._rng.rng.seed(seed)

"""Samplers by name, with every argument explicit, so that a study does not change when a library's defaults do."""

from collections.abc import Callable

import optuna

# Over-budget draws count as start-up trials too; twice Optuna's ten leaves about ten that train.
STARTUP_TRIALS = 20


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Multivariate TPE; candidates that are being trained count as bad (constant liar), so that parallel draws differ."""
    return optuna.samplers.TPESampler(
        n_startup_trials=STARTUP_TRIALS,
        n_ei_candidates=24,
        multivariate=True,
        group=False,
        constant_liar=True,
        seed=seed,
    )


SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {"tpe": tpe}

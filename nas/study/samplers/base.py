"""The base of every sampler: a function of the trials so far and of a seed, which returns the next trial's parameters."""

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.study.history import all_with_values, history_view
from nas.study.optuna_private import begin_trial, set_attributes


class SeededSampler(optuna.samplers.BaseSampler):
    """Parameters that `draw` leaves out are drawn uniformly."""

    study_seed: int = 0  # for draws that belong together, such as the points of one sequence
    limit: int | None = None  # parameters of the next draw at most, if each trial has its own budget
    wants_margins: ClassVar[bool] = False  # whether it needs to know by how much a network that fits stays below its limits

    def __post_init__(self) -> None:
        self.seed(0)

    def seed(self, seed: int) -> None:
        """The next draw depends only on this seed and the study, so that an interrupted search repeats its draw."""
        self.next_seed = seed
        self.independent: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed)

    @abstractmethod
    def draw(self, study: optuna.Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """`space`: of the trials so far, sorted by name, never empty."""

    @cached_property
    def _common_space(self) -> optuna.search_space.IntersectionSearchSpace:
        return optuna.search_space.IntersectionSearchSpace(include_pruned=True)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        known = history_view(study.get_trials(deepcopy=False)).study  # one of the same id, whichever it is
        found = {name: one for name, one in self._common_space.calculate(known).items() if not one.single()}
        return {} if found.keys() <= trial.params.keys() else found  # what an earlier run has drawn stays

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.draw(study, trial, search_space) if search_space else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.independent.sample_independent(study, trial, param_name, param_distribution)


def ask(study: optuna.Study, distributions: dict[str, BaseDistribution], trials: Sequence[FrozenTrial]) -> optuna.Trial:
    """Like `Study.ask`, but from `trials`, which are all of the study's, and with all parameters of a new trial in one
    transaction."""
    if any(trial.state == TrialState.WAITING for trial in trials):
        return study.ask()
    history, new, sampler = history_view(trials), create_trial(state=TrialState.RUNNING), study.sampler
    known, new.number = history.study, len(trials)
    params = sampler.sample_relative(known, new, sampler.infer_relative_search_space(known, new))
    for name, one in distributions.items():
        if one.single():
            params[name] = one.choices[0] if isinstance(one, CategoricalDistribution) else one.low  # type: ignore[attr-defined]
        elif name not in params:
            params[name] = sampler.sample_independent(known, new, name, one)
    drawn = {name: params[name] for name in distributions}
    return begin_trial(
        study, create_trial(state=TrialState.RUNNING, params=drawn, distributions=distributions, system_attrs=history.written)
    )


class Informed(SeededSampler):
    """One of Optuna's samplers, made anew from its seed for each draw. It sees the study as `history.all_with_values`."""

    constrained: ClassVar[bool] = False  # whether it uses constraints; one that does not draws again until a draw fits
    most_shown: ClassVar[int | None] = None
    """Number of finished trials that it sees, half of them the best and half the newest, if all would take too long."""

    @abstractmethod
    def make(self, trials: Sequence[FrozenTrial], space: dict[str, BaseDistribution]) -> optuna.samplers.BaseSampler:
        """Made from `next_seed`; apart from that its draw depends only on `trials`."""

    def draw(self, study: optuna.Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        history = history_view(_most_telling(all_with_values(study, self.limit, self.constrained), self.most_shown))
        with experiments_allowed():
            sampler = self.make(history.trials, space)
        params = sampler.sample_relative(history.study, trial, space)
        set_attributes(study, trial, history.written)
        return params


def _most_telling(trials: list[FrozenTrial], most: int | None) -> list[FrozenTrial]:
    finished = [trial for trial in trials if trial.state.is_finished()]
    if most is None or len(finished) <= most:
        return trials
    fitting = [trial for trial in finished if all(value <= 0 for value in trial.constraints.values())]
    kept = {trial.number for trial in sorted(fitting, key=lambda trial: trial.value or 0.0)[-most // 2 :]}
    newest = [trial.number for trial in finished if trial.number not in kept]
    kept.update(newest[len(kept) - most :])
    return [trial for trial in trials if trial.number in kept or not trial.state.is_finished()]


@contextmanager
def experiments_allowed() -> Iterator[None]:
    """Hides Optuna's warnings about experimental and deprecated features, because its version is pinned, and those of cmaes about
    divisions by zero, which a tiny population causes at each draw."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="cmaes")
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield

"""Samplers by name: how the next candidate is drawn from a study, as a function of the trials so far and of a seed.

To add one: a dataclass that derives from `SeededSampler` (from `Informed` for one of Optuna's), whose fields have types and
limits, and an entry in `SAMPLERS`. The conformance tests then find it.
"""

import math
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import Field

from nas.study.history import all_with_values, history_view
from nas.study.optuna_private import RememberingTPESampler, begin_trial, set_attributes

# Over-budget draws count as start-up trials too; twice Optuna's ten leaves about ten that train.
STARTUP_TRIALS = 20
MOST_GOOD = 25  # trials that may count as good, as in Optuna
ATTEMPTS = 20  # to make a child that is new, and to change a number


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


# ---------------------------------------------------------------------------------------------------------------------- our own


@dataclass(eq=False)
class Random(SeededSampler):
    """Uniform draws in each range's own scale: the baseline of all other samplers."""

    def draw(self, study: optuna.Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return {}


@dataclass(eq=False)
class Qmc(SeededSampler):
    """A scrambled Sobol sequence: random search without gaps. A trial's number is the number of its point, so a draw depends only
    on the trial; a candidate over budget uses up its point."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Of the first trial; its order is that of the sequence's dimensions."""
        others = (one for one in study.get_trials(deepcopy=False) if one.number != trial.number and one.distributions)
        found = next((one.distributions for one in others), {})
        return {} if found.keys() <= trial.params.keys() else dict(found)

    def draw(self, study: optuna.Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        from scipy.stats.qmc import Sobol  # slow to import

        sequence = Sobol(len(space), scramble=True, seed=self.study_seed % 2**32)
        if trial.number:
            sequence.fast_forward(trial.number)
        point = sequence.random(1)[0]
        return {name: from_unit(one, float(place)) for (name, one), place in zip(space.items(), point, strict=True)}


@dataclass(eq=False)
class Evolution(SeededSampler):
    """Regularised evolution (arXiv 1802.01548): changes a little the fittest of a few networks from the population.

    The population consists of the last networks that trained, whatever their accuracy: they leave it by age, not by weakness, so
    a network that was lucky once does not stay for ever. Candidates over budget and duplicates are never part of it.
    """

    population: Annotated[int, Field(ge=2)] = 40  # networks that trained, pruned ones included, at most
    tournament: Annotated[int, Field(ge=1)] = 16  # networks drawn from it; the best becomes the parent
    mutations: Annotated[float, Field(gt=0)] = 4.0  # parameters that a child changes on average, one of them at least
    step: Annotated[float, Field(gt=0, le=1)] = 0.2  # deviation of a number's change, as a share of its range
    startup_trials: Annotated[int, Field(ge=1)] = 16  # networks that trained, before which draws are uniform

    def draw(self, study: optuna.Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        shown = all_with_values(study, self.limit, over_budget=False)
        known = [t for t in shown if t.state == TrialState.COMPLETE and space.keys() <= t.params.keys()]
        if len(known) < self.startup_trials:
            return {}
        rng = np.random.default_rng(self.next_seed)
        youngest = sorted(known, key=lambda t: t.number)[-self.population :]
        chosen = rng.choice(len(youngest), size=min(self.tournament, len(youngest)), replace=False)
        parent = max((youngest[i] for i in chosen), key=lambda t: t.value or 0.0)
        others = (t for t in study.get_trials(deepcopy=False) if t.number != trial.number)
        there = {_key(t.params, space) for t in others if space.keys() <= t.params.keys()}
        for _ in range(ATTEMPTS):
            child = self._child(parent.params, space, rng)
            if _key(child, space) not in there:
                break
        return child

    def _child(self, parent: dict[str, Any], space: dict[str, BaseDistribution], rng: np.random.Generator) -> dict[str, Any]:
        changed = rng.random(len(space)) < self.mutations / len(space)
        changed[rng.integers(len(space))] = True
        return {
            name: self._changed(parent[name], one, rng) if is_changed else parent[name]
            for (name, one), is_changed in zip(space.items(), changed, strict=True)
        }

    def _changed(self, value: Any, distribution: BaseDistribution, rng: np.random.Generator) -> Any:
        """Another random choice, or a number near by, in the range's own scale."""
        if isinstance(distribution, CategoricalDistribution):
            others = [choice for choice in distribution.choices if choice != value]
            return others[rng.integers(len(others))]
        here = to_unit(distribution, value)
        near = value
        for _ in range(ATTEMPTS):
            there = here + self.step * rng.standard_normal()
            near = from_unit(distribution, 1 - abs(1 - abs(there) % 2))  # reflected at both ends
            if near != value:
                break
        return near


def _key(params: dict[str, Any], names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(params[name] for name in names)


def _bounds(distribution: BaseDistribution) -> tuple[float, float]:
    """Of a number in its range's own scale; all steps have the same width, also those at the ends."""
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    half = 0.5 * (distribution.step or 0.0)
    if distribution.log:
        return math.log(distribution.low - half), math.log(distribution.high + half)
    return distribution.low - half, distribution.high + half


def to_unit(distribution: BaseDistribution, value: float) -> float:
    """A number's place in [0, 1]."""
    low, high = _bounds(distribution)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return ((math.log(value) if distribution.log else value) - low) / (high - low)


def from_unit(distribution: BaseDistribution, place: float) -> Any:
    """The value at a place in [0, 1), as in Optuna's samplers."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(place * len(distribution.choices))]
    low, high = _bounds(distribution)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    value = low + place * (high - low)
    if distribution.log:
        value = math.exp(value)
    if isinstance(distribution, IntDistribution):
        step = distribution.step
        nearest = (
            round(value) if distribution.log else math.floor((value - distribution.low) / step + 0.5) * step + distribution.low
        )
        return min(max(nearest, distribution.low), distribution.high)
    if distribution.step is not None:
        value = round((value - distribution.low) / distribution.step) * distribution.step + distribution.low
        return float(np.clip(value, distribution.low, distribution.high))
    return float(np.clip(value, distribution.low, np.nextafter(distribution.high, distribution.low)))


# ------------------------- Optuna's, with every argument explicit, so that a study does not change when a library's defaults do


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


@dataclass(eq=False)
class Tpe(Informed):
    """Multivariate tree-structured Parzen estimator. Running candidates count as bad (constant liar), so that parallel draws
    differ.

    It differs in two ways from Optuna's, with which a search with pruning got stuck (scripts/bench/README.md). It sees the
    expected final values of pruned trials: Optuna ranks every completed trial before every pruned one, so the first trials, which
    could not be pruned, stay good for ever. And it takes the better of few candidates: the best of 24 follows the estimate even
    where it is wrong, and in so many dimensions the estimate is a guess.
    """

    constrained: ClassVar[bool] = True

    startup_trials: Annotated[int, Field(ge=0)] = STARTUP_TRIALS  # drawn uniformly first, those over budget included
    candidates: Annotated[int, Field(ge=1)] = 2  # drawn from the density of the good trials; the one with the best ratio is taken
    good: Annotated[float, Field(gt=0, lt=1)] = 0.06  # share of the trials that count as good

    def __post_init__(self) -> None:
        super().__post_init__()
        self._rows: tuple[list[str], dict[int, list[float]]] = ([], {})

    def seed(self, seed: int) -> None:
        super().seed(seed)
        with experiments_allowed():
            # Not uniform if the study has enough trials, but the view of it does not.
            self.independent = self._sampler()

    def make(self, trials: Sequence[FrozenTrial], space: dict[str, BaseDistribution]) -> optuna.samplers.BaseSampler:
        if self._rows[0] != list(space):
            self._rows = (list(space), {})
        sampler = self._sampler()
        sampler.rows = self._rows[1]
        return sampler

    def _sampler(self) -> RememberingTPESampler:
        return RememberingTPESampler(
            n_startup_trials=self.startup_trials,
            n_ei_candidates=self.candidates,
            gamma=lambda count: min(math.ceil(self.good * count), MOST_GOOD),
            multivariate=True,
            group=False,
            constant_liar=True,
            warn_independent_sampling=False,
            seed=self.next_seed,
        )


@dataclass(eq=False)
class Gp(Informed):
    """A Gaussian process: it learns most from few trials, and takes a second or more for each draw. A second process models by
    how much a network exceeds the limits, so that draws avoid them. Fitting takes the cube of the number of trials, so it sees
    only the best and the newest."""

    constrained: ClassVar[bool] = True
    wants_margins: ClassVar[bool] = True
    most_shown: ClassVar[int | None] = 100

    startup_trials: Annotated[int, Field(ge=1)] = 10

    def make(self, trials: Sequence[FrozenTrial], space: dict[str, BaseDistribution]) -> optuna.samplers.BaseSampler:
        return optuna.samplers.GPSampler(n_startup_trials=self.startup_trials, deterministic_objective=False, seed=self.next_seed)

    def draw(self, study: optuna.Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        with np.errstate(invalid="ignore"):  # where one point is better than any other by more than a float holds
            return super().draw(study, trial, space)


@dataclass(eq=False)
class Cmaes(Informed):
    """CMA-ES over the numeric parameters, for spaces with few categorical ones, which are drawn uniformly.

    A candidate over budget is drawn again, and a generation consists of networks that trained. The first generation is drawn
    around the best uniform draw, because around the middle of the space few networks might fit.
    """

    startup_trials: Annotated[int, Field(ge=1)] = 10
    population: Annotated[int, Field(ge=2)] | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        found = super().infer_relative_search_space(study, trial)
        return {name: one for name, one in found.items() if not isinstance(one, CategoricalDistribution)}

    def make(self, trials: Sequence[FrozenTrial], space: dict[str, BaseDistribution]) -> optuna.samplers.BaseSampler:
        first = [trial for trial in trials if trial.state == TrialState.COMPLETE][: self.startup_trials]
        best = max(first, key=lambda trial: trial.value or 0.0).params if first else {}
        return optuna.samplers.CmaEsSampler(
            x0={name: best[name] for name in space} if best else None,
            n_startup_trials=self.startup_trials,
            popsize=self.population,
            seed=self.next_seed,
        )


SAMPLERS: dict[str, type[SeededSampler]] = {
    "tpe": Tpe,
    "random": Random,
    "gp": Gp,
    "qmc": Qmc,
    "cmaes": Cmaes,
    "evolution": Evolution,
}

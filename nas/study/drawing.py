"""Asks Optuna for candidates and decides about each before anything is trained: it fits, is over budget, or repeats an earlier
one. Knows nothing about workers.

A draw depends only on the study's seed, the trial's number and the content of the study, so a search that was stopped in the
middle of a draw makes the same draw again.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.trial import FrozenTrial, TrialState

from nas.budget import Budget
from nas.config import Candidate, StudyConfig
from nas.data.loader import mix_seed
from nas.errors import NasError, choices_sentence
from nas.paths import StudyPaths
from nas.space.feasibility import nothing_fits
from nas.space.space import Space
from nas.study import outcomes
from nas.study.optuna_private import live_trial, stored_trial
from nas.study.samplers import SeededSampler, ask
from nas.study.source import Drawn, TrialSource

MAX_OVER_BUDGET_IN_A_ROW = 1000
MAX_DUPLICATES_IN_A_ROW = 200
FRONT = 0xF2047  # separates the draws of budgets from other draws with the same seed and number


class SearchSource(TrialSource):
    def __init__(
        self,
        study: optuna.Study,
        paths: StudyPaths,
        sampler: SeededSampler,
        space: Space,
        budget: Budget,
        *,
        seed: int,
        config: StudyConfig | None = None,
        least_params: int | None = None,
        **more: Any,
    ) -> None:
        """`least_params`: each trial gets its own budget, drawn between this number of parameters and the study's. `more`: see
        `TrialSource`."""
        super().__init__(study, paths, epochs=space.epochs, seed=seed, **more)
        self.sampler, self.space, self.budget, self.least_params = sampler, space, budget, least_params
        self.config = config or StudyConfig()
        study.sampler = sampler
        self._unjudged: tuple[optuna.Trial, Candidate, Budget] | None = None  # drawn, waits to be timed on an idle machine
        self._in_a_row = Counter[str]()
        self._broken = Counter[str]()  # limits that the last draws exceeded
        self._first_of_digest: dict[str, int] = {}  # number of the first trial of each digest that fits and has not failed
        self._twins: dict[int, list[optuna.Trial]] = {}  # duplicates that wait for the trial of that number to end
        for trial in study.get_trials(deepcopy=False):
            if trial.user_attrs.get("outcome") in outcomes.COUNTED:  # told, or recorded by an interrupted run
                self._first_of_digest.setdefault(trial.user_attrs["digest"], trial.number)

    # -------------------------------------------------------------------------------------------------------- drawing

    @property
    def needs_idle_machine(self) -> bool:  # type: ignore[override]
        return self.busy and self._unjudged is not None

    def begin_draw(self) -> None:
        self.busy = True
        self._in_a_row.clear()
        self._broken.clear()

    def work(self) -> None:
        """One draw."""
        try:
            self._draw_once()
        except NasError as error:
            self.busy, self.error = False, error
        if self.exhausted and not self.busy:
            self.display.note(self.exhausted)

    def _draw_once(self) -> None:
        """Raises BudgetError if nothing seems to fit."""
        if self._unjudged is None:
            trials = self.study.get_trials(deepcopy=False)
            # Trials enqueued by a warm start, or by the user, come first.
            waiting = (trial.number for trial in trials if trial.state == TrialState.WAITING)
            self._prepare_sampler(next(waiting, len(trials)))
            self._unjudged = self._draw(ask(self.study, self.space.distributions, trials))
            if self._unjudged is None:
                return
            _, candidate, budget = self._unjudged
            if budget.needs_idle_machine(candidate.arch):
                return
        unjudged, self._unjudged = self._unjudged, None
        verdict = self._judge(*unjudged)
        if verdict == "fits":
            self.busy = False
            return
        self._in_a_row[verdict] += 1
        if self._in_a_row["over_budget"] >= MAX_OVER_BUDGET_IN_A_ROW:
            raise nothing_fits(
                self.space,
                self.budget,
                f"{MAX_OVER_BUDGET_IN_A_ROW} candidates in a row were over budget; the search stops",
                limit=self._broken.most_common(1)[0][0],
                begun=True,
            )
        if self._in_a_row["duplicate"] >= MAX_DUPLICATES_IN_A_ROW:
            self.exhausted = f"{MAX_DUPLICATES_IN_A_ROW} candidates in a row repeated earlier ones: the space is exhausted"
            self.busy = False

    def _prepare_sampler(self, number: int) -> None:
        self.sampler.seed(mix_seed(self.seed, number) % 2**32)
        # Widths are scaled to the limit, so a trial that was too large for one budget says nothing about another.
        self.sampler.limit = None if self.space.fills else self._limit(number)

    def _limit(self, number: int) -> int | None:
        """Parameter limit of the trial of this number, if each trial has its own budget: uniform in the logarithm."""
        most = self.budget.limits.params
        if self.least_params is None or most is None:
            return None
        share = mix_seed(self.seed, number, FRONT) / 2**63
        return round(self.least_params * (most / self.least_params) ** share)

    def adopt_undecided(self, frozen: FrozenTrial) -> None:
        """Repeats a draw that an earlier run began; what it had stored stays."""
        twin = frozen.user_attrs.get("duplicate_of")
        if twin is not None and (ended := self.study.get_trials(deepcopy=False)[twin]).state.is_finished():
            self._record_duplicate(live_trial(self.study, frozen), ended)
            return
        self._prepare_sampler(frozen.number)
        drawn = self._draw(live_trial(self.study, frozen))
        if drawn is not None and self._judge(*drawn) == "fits":
            self.ready[-1].micro_batches = frozen.user_attrs.get("micro_batches", 1)
            self.ready[-1].known.update(frozen.intermediate_values)

    def _draw(self, trial: optuna.Trial) -> tuple[optuna.Trial, Candidate, Budget] | None:
        """A trial's candidate and its budget; None if the trial fails because it was enqueued with values outside the space."""
        space, budget = self.space, self.budget
        if (reason := unknown_to(space, stored_trial(trial))) is not None:
            self.display.note(f"the enqueued trial {trial.number} is invalid: {reason}")
            trial.set_user_attr("reason", reason)
            outcomes.record(self.study, trial, "failed")
            self.progress.counts["failed"] += 1
            return None
        limit = None if "origin" in trial.user_attrs else self._limit(trial.number)  # a warm start has the study's
        if limit is not None:
            budget = budget.narrowed(limit)
            space = replace(space, budget=budget.limits)
            trial.set_user_attr("limit", limit)
        return trial, space.draw(trial), budget

    def _judge(self, trial: optuna.Trial, candidate: Candidate, budget: Budget) -> str:
        """Decides about a candidate: `fits` (it is queued), `over_budget` or `duplicate`."""
        cost = budget.check(candidate.arch)
        candidate = candidate.as_trial(self.config, cost.macs, self.space.budget.macs)
        outcomes.describe(trial, candidate, cost)
        if budget is self.budget and self.sampler.wants_margins:
            trial.set_user_attr("excess", max(cost.excess.values()))
        if not cost.fits:
            outcomes.record(self.study, trial, "over_budget", cost.excess)
            self.progress.counts["over_budget"] += 1
            self._broken.update(cost.broken)
            return "over_budget"
        first = self._first_of_digest.setdefault(candidate.digest, trial.number)
        if first == trial.number:
            self.ready.append(Drawn(trial, candidate, cost.params, cost.macs or 0))
            return "fits"
        twin = self.study.get_trials(deepcopy=False)[first]
        if twin.state.is_finished():
            self._record_duplicate(trial, twin)
        else:
            self._twins.setdefault(first, []).append(trial)
        return "duplicate"

    # ---------------------------------------------------------------------------------------------- what was trained

    def settle_twins(self, ended: FrozenTrial) -> None:
        for twin in self._twins.pop(ended.number, []):
            self._record_duplicate(twin, ended)

    def forget(self, drawn: Drawn) -> None:
        """A failed training is no result, so the same candidate may be drawn again."""
        self._first_of_digest.pop(drawn.candidate.digest, None)

    def _record_duplicate(self, trial: optuna.Trial, twin: FrozenTrial) -> None:
        outcomes.record_duplicate(self.study, trial, twin)
        self.progress.counts["duplicate"] += 1


def unknown_to(space: Space, trial: FrozenTrial) -> str | None:
    """What a trial enqueued with Optuna contains that cannot be drawn from the space, in a sentence; None if nothing."""
    for name, value in {**trial.system_attrs.get("fixed_params", {}), **trial.params}.items():
        if name not in space.by_name:
            return f"space {space.name} has no parameter {name!r}.{choices_sentence(name, space.by_name)}"
        slot, kind = space.by_name[name], trial.distributions.get(name)
        if not slot.holds(value):
            return f"{name} is {value!r}, but must be {slot.describe()} in space {space.name}"
        if kind is not None and slot.drawn and not _compatible(kind, slot.domain):
            return f"{name} has the range {kind}, but must be {slot.describe()} in space {space.name}"
    return None


def _compatible(kind: BaseDistribution, domain: BaseDistribution) -> bool:
    try:
        check_distribution_compatibility(kind, domain)
    except ValueError:
        return False
    return True

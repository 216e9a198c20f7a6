"""Asks Optuna for candidates and decides what becomes of each before anything is trained: it fits, is over budget, or repeats
an earlier one. Knows nothing of workers.

A draw follows from the study's seed, the trial's number and what the study holds, so that a search that was cut off in the
middle of a draw makes the same one again.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution, check_distribution_compatibility
from optuna.trial import FrozenTrial, TrialState

from nas.budget import Budget
from nas.config import Candidate, StudyConfig
from nas.data.loader import mix_seed
from nas.errors import NasError, choices_sentence
from nas.paths import StudyPaths
from nas.space.feasibility import nothing_fits
from nas.space.space import Space
from nas.study import outcomes
from nas.study.optuna_private import live_trial
from nas.study.samplers import SeededSampler, ask
from nas.study.source import Drawn, TrialSource

MAX_OVER_BUDGET_IN_A_ROW = 1000
MAX_DUPLICATES_IN_A_ROW = 200
FRONT = 0xF2047  # sets the draws of budgets apart from other draws of the same seed and number


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
        """`least_params`: each trial has a budget of its own, drawn between this many parameters and the study's. `more`: see
        `TrialSource`."""
        super().__init__(study, paths, epochs=space.epochs, seed=seed, **more)
        self.sampler, self.space, self.budget, self.least_params = sampler, space, budget, least_params
        self.config = config or StudyConfig()
        study.sampler = sampler
        self._unjudged: tuple[optuna.Trial, Candidate, Budget] | None = None  # drawn, and to be timed on an idle machine
        self._in_a_row = Counter[str]()
        self._broken = Counter[str]()  # limits, by the draws in a row that were over them
        self._first_of_digest: dict[str, int] = {}  # number of the first trial of each digest that fits and has not failed
        self._twins: dict[int, list[optuna.Trial]] = {}  # duplicates that wait for the end of the trial of that number
        for trial in study.get_trials(deepcopy=False):
            if trial.user_attrs.get("outcome") in outcomes.COUNTED:  # told, or recorded by a run that was cut off
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
        """Raises BudgetError where nothing seems to fit."""
        if self._unjudged is None:
            trials = self.study.get_trials(deepcopy=False)
            # A warm start's, or somebody's, come first.
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
        # Widths that are scaled to the limit fit any: what was too large for one budget says nothing of another.
        self.sampler.limit = None if self.space.fills else self._limit(number)

    def _limit(self, number: int) -> int | None:
        """Parameters that the trial of this number may have, where each has a budget of its own: uniform in the logarithm."""
        most = self.budget.limits.params
        if self.least_params is None or most is None:
            return None
        share = mix_seed(self.seed, number, FRONT) / 2**63
        return round(self.least_params * (most / self.least_params) ** share)

    def adopt_undecided(self, frozen: FrozenTrial) -> None:
        """Draws a trial again that an earlier run had begun to draw: what it had stored stays as it was."""
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
        """A trial's candidate, and the budget that it is held against; None for one that fails, since whoever enqueued it gave it
        what the space does not hold."""
        space, budget = self.space, self.budget
        if (reason := unknown_to(space, outcomes.stored(self.study, trial))) is not None:
            self.display.note(f"the enqueued trial {trial.number} is invalid: {reason}")
            trial.set_user_attr("reason", reason)
            outcomes.record(self.study, trial, "failed")
            self.progress.counts["failed"] += 1
            return None
        limit = None if "origin" in trial.user_attrs else self._limit(trial.number)  # a warm start's candidate is what it is
        if limit is not None:
            budget = budget.narrowed(limit)
            space = replace(space, budget=budget.limits)
            trial.set_user_attr("limit", limit)
        return trial, space.draw(trial), budget

    def _judge(self, trial: optuna.Trial, candidate: Candidate, budget: Budget) -> str:
        """Decides what becomes of it: `fits` (it is queued), `over_budget` or `duplicate`."""
        cost = budget.check(candidate.arch)
        if cost.macs and (flop := self.config.compute_of(cost.macs, self.space.budget.macs)) is not None:
            candidate = candidate.for_compute(flop, cost.macs)
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
        """Ends the duplicates that waited for this trial."""
        for twin in self._twins.pop(ended.number, []):
            self._record_duplicate(twin, ended)

    def forget(self, drawn: Drawn) -> None:
        """A failed training is no result: the same candidate may be drawn again."""
        self._first_of_digest.pop(drawn.candidate.digest, None)

    def _record_duplicate(self, trial: optuna.Trial, twin: FrozenTrial) -> None:
        outcomes.record_duplicate(self.study, trial, twin)
        self.progress.counts["duplicate"] += 1


def unknown_to(space: Space, trial: FrozenTrial) -> str | None:
    """What a trial that was enqueued with Optuna holds that cannot be drawn from the space, in a sentence; None if nothing."""
    slots = {slot.name: slot for slot in space.slots}
    for name, value in {**trial.system_attrs.get("fixed_params", {}), **trial.params}.items():
        if name not in slots:
            return f"space {space.name} has no parameter {name!r}.{choices_sentence(name, slots)}"
        slot, kind = slots[name], trial.distributions.get(name)
        number = isinstance(slot.domain, IntDistribution | FloatDistribution)
        if not slot.holds(value) or (number and not isinstance(value, int | float)):
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

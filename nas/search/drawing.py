"""Asks Optuna for candidates and decides what becomes of each before anything is trained: it fits, is over budget, or repeats
an earlier one. Knows nothing of workers.

A draw follows from the study's seed, the trial's number and what the study holds, so that a search that was cut off in the
middle of a draw makes the same one again.
"""

from collections import Counter, deque

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.budget import Budget
from nas.data.loader import mix_seed
from nas.search import outcomes
from nas.search.feasibility import nothing_fits
from nas.search.progress import Running
from nas.search.samplers import SeededSampler
from nas.space import Space

MAX_OVER_BUDGET_IN_A_ROW = 1000
MAX_DUPLICATES_IN_A_ROW = 200


class Drawer:
    def __init__(self, study: optuna.Study, sampler: SeededSampler, space: Space, budget: Budget, seed: int) -> None:
        self.study, self.sampler, self.space, self.budget, self.seed = study, sampler, space, budget, seed
        study.sampler = sampler
        self.ready: deque[Running] = deque()
        """Drawn ahead, waiting for a worker."""
        self.counts: Counter[str] = Counter()
        """Of the outcomes that are decided here."""
        self.exhausted: str | None = None
        """Why nothing more is drawn."""
        self.drawing = False
        """Whether a draw has begun that has not led to a candidate yet."""
        self._in_a_row = Counter[str]()
        self._first_of_digest: dict[str, int] = {}
        """Number of the first trial of each digest that fits and has not failed."""
        self._twins: dict[int, list[optuna.Trial]] = {}
        """Duplicates that wait for the end of the trial of that number."""
        for trial in study.get_trials(deepcopy=False):
            if trial.user_attrs.get("outcome") in outcomes.COUNTED:  # told, or recorded by a run that was cut off
                self._first_of_digest.setdefault(trial.user_attrs["digest"], trial.number)

    # -------------------------------------------------------------------------------------------------------- drawing

    def begin(self) -> None:
        """The steps that follow lead to one candidate in `ready`, or to `exhausted`."""
        self.drawing = True
        self._in_a_row.clear()

    def step(self) -> None:
        """One draw: some tens of milliseconds. Raises BudgetError where nothing seems to fit."""
        assert self.drawing
        self._seed_for(self._next_number())
        verdict = self._judge(self.study.ask())
        if verdict == "fits":
            self.drawing = False
            return
        self._in_a_row[verdict] += 1
        if self._in_a_row["over_budget"] >= MAX_OVER_BUDGET_IN_A_ROW:
            raise nothing_fits(
                self.space,
                self.budget,
                f"{MAX_OVER_BUDGET_IN_A_ROW} draws in a row were over budget; the search stops",
            )
        if self._in_a_row["duplicate"] >= MAX_DUPLICATES_IN_A_ROW:
            self.exhausted = f"{MAX_DUPLICATES_IN_A_ROW} draws in a row repeated earlier ones: the space is exhausted"
            self.drawing = False

    def _next_number(self) -> int:
        """Of the trial that `ask` will give: the first that a warm start has enqueued, or a new one."""
        trials = self.study.get_trials(deepcopy=False)
        return next((trial.number for trial in trials if trial.state == TrialState.WAITING), len(trials))

    def _seed_for(self, number: int) -> None:
        self.sampler.seed(mix_seed(self.seed, number) % 2**32)

    def adopt(self, frozen: FrozenTrial) -> None:
        """Draws a trial again that an earlier run had begun to draw: what it had stored stays as it was."""
        twin = frozen.user_attrs.get("duplicate_of")
        if twin is not None and (ended := self.study.get_trials(deepcopy=False)[twin]).state.is_finished():
            self._record_duplicate(optuna.Trial(self.study, frozen._trial_id), ended)
            return
        self._seed_for(frozen.number)
        if self._judge(optuna.Trial(self.study, frozen._trial_id)) == "fits":
            self.ready[-1].micro_batches = frozen.user_attrs.get("micro_batches", 1)
            self.ready[-1].known.update(frozen.intermediate_values)

    def _judge(self, trial: optuna.Trial) -> str:
        """Draws a trial's candidate and decides what becomes of it: `fits` (it is queued), `over_budget` or `duplicate`."""
        candidate = self.space.draw(trial)
        cost = self.budget.check(candidate.arch)
        outcomes.describe(trial, candidate, cost)
        if not cost.fits:
            outcomes.record(self.study, trial, "over_budget", cost.excess)
            self.counts["over_budget"] += 1
            return "over_budget"
        first = self._first_of_digest.setdefault(candidate.digest, trial.number)
        if first == trial.number:
            self.ready.append(Running(trial, candidate, cost.params))
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

    def forget(self, running: Running) -> None:
        """A failed training is no result: the same candidate may be drawn again."""
        self._first_of_digest.pop(running.candidate.digest, None)

    def _record_duplicate(self, trial: optuna.Trial, twin: FrozenTrial) -> None:
        outcomes.record_duplicate(self.study, trial, twin)
        self.counts["duplicate"] += 1

"""Finalists: the best networks of a search are trained again, longer and with several seeds, before one of them is called the
best.

Short trainings with pruning find the top tenth; the order within it is mostly luck. The trainings of the finalists are trials of
a sibling study in the same database, so they do not change the sampler's history; the same workers train them.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.config import StudyConfig, check_epochs, flop_word
from nas.data.loader import mix_seed
from nas.errors import ConfigError, NasError, StudyError
from nas.paths import StudyPaths
from nas.space.space import Space
from nas.study import outcomes
from nas.study.history import is_duplicate
from nas.study.identity import FINALISTS
from nas.study.optuna_private import give_up, live_trial
from nas.study.source import Drawn, TrialSource
from nas.study.storage import create_other_study, find_other_study
from nas.study.trials import trial_candidate

SHARE = 0.2  # of the search's cost: the default for finalists
MOST = 8
LEAST = 2  # a single network leaves nothing to choose
LENGTHS = ((1.5, 2), (1.0, 2), (1.0, 1))
"""Epochs as a multiple of the search's, and seeds. The first pair is used for which the cost allows at least two networks."""
SHOWN = ("params", "macs", "architecture", "micro_batches", "sam_rho", "epoch_images", "hardest")
"""Attributes of a search's trial that the training of a finalist copies."""
FINALS = 0xF17A15  # separates the seeds of these trainings from those of the search


@dataclass(frozen=True)
class Round:
    """`count` networks, trained for `epochs` epochs with each of `seeds` seeds."""

    count: int
    epochs: int
    seeds: int

    @property
    def cost(self) -> int:
        """In epochs."""
        return self.count * self.epochs * self.seeds


@dataclass(frozen=True)
class Finalist:
    number: int  # of the search's trial
    epochs: int
    accuracies: tuple[float, ...]  # for each seed, on the validation images, by the study's metric

    @property
    def mean(self) -> float:
        """The winner has the highest."""
        return fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Of a sample; None for a single seed."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None


def check_request(count: int | None, epochs: int | None, seeds: int | None, trials: int, search_epochs: int) -> None:
    """Raises ConfigError for an impossible request."""
    if count is not None and count < 0:
        raise ConfigError(f"--finalists must be a number of networks, 0 for none, but is {count}")
    if count is not None and count > trials:
        raise ConfigError(f"--finalists {count} is larger than --trials {trials}", hint=f"at most --finalists {trials}")
    if seeds is not None and seeds < 1:
        raise ConfigError(f"--finalist-seeds must be at least 1, but is {seeds}")
    if epochs is not None:
        check_epochs(epochs, "--finalist-epochs")
        if epochs < search_epochs:
            raise ConfigError(
                f"--finalist-epochs must be at least the search's {search_epochs}, but is {epochs}",
                hint=f"leave it out, or use {search_epochs} or more, because finalists are trained for longer",
            )
    if count == 0 and (epochs is not None or seeds is not None):
        raise ConfigError("--finalists 0 means no finalists, so --finalist-epochs and --finalist-seeds cannot be used")


def reserved_flop(
    flop: float | None, asked: Round | None, count: int | None, search_epochs: int, config: StudyConfig, most_macs: int | None
) -> float:
    """What a search reserves for finalists of `flop`, its compute: what they cost at most, if their `count` was given and trials
    have a compute; else a fifth. Raises ConfigError if this leaves the search nothing."""
    if asked is None or flop is None:
        return 0.0
    each = config.compute_of(most_macs or 1, most_macs, asked.epochs / search_epochs)
    if not count or each is None:
        return SHARE * flop
    needed = asked.count * asked.seeds * each
    if needed >= flop:
        rounded = flop_word(float(f"{needed:.3g}"))
        raise ConfigError(
            f"finalists need {rounded}, and --compute {flop_word(flop)} would leave the search nothing",
            hint="raise --compute, or lower --finalists, --finalist-epochs or --finalist-seeds",
        )
    return needed


def plan_round(
    spent: float,
    search_epochs: int,
    count: int | None = None,
    epochs: int | None = None,
    seeds: int | None = None,
    begun: Round | None = None,
) -> Round | None:
    """The requested round. What is not given is chosen so that the round costs about a fifth of `spent`, the epochs of the
    search. None if that is too little for two networks, or if `count` is 0. A round that has begun keeps its epochs and seeds
    unless others are given, and gets more networks if the search has continued."""
    if begun is not None:
        asked = plan_round(spent, search_epochs, count, epochs or begun.epochs, seeds or begun.seeds)
        return replace(asked, count=max(asked.count, begun.count)) if asked is not None and count is None else asked
    if count == 0:
        return None
    for factor, usual_seeds in LENGTHS:
        one = Round(1, epochs or math.ceil(factor * search_epochs), seeds or usual_seeds)
        affordable = min(MOST, round(SHARE * spent / one.cost))
        if count is not None or affordable >= LEAST:
            return replace(one, count=count or affordable)
    if epochs is not None or seeds is not None:
        return Round(LEAST, epochs or search_epochs, seeds or 1)
    return None


def epochs_spent(trials: Iterable[FrozenTrial]) -> int:
    """Epochs trained in this study, without imported trials."""
    own = (t for t in trials if not t.user_attrs.get("imported") and not is_duplicate(t))
    return sum(max(trial.intermediate_values, default=0) for trial in own)


def choose(
    study: optuna.Study, search_epochs: int, count: int | None, epochs: int | None, seeds: int | None
) -> tuple[Round, list[FrozenTrial]] | None:
    """The round after a search, by its real cost; None without finalists."""
    trials = study.get_trials(deepcopy=False)
    asked = plan_round(epochs_spent(trials), search_epochs, count, epochs, seeds, begun_round(study))
    if asked is None:
        return None
    chosen = outcomes.best_trials(trials, asked.count)
    return (replace(asked, count=len(chosen)), chosen) if len(chosen) >= LEAST or (count and chosen) else None


def sibling(study: optuna.Study) -> optuna.Study | None:
    """None if there are no finalists yet."""
    return find_other_study(study, study.study_name + FINALISTS)


def begun_round(study: optuna.Study) -> Round | None:
    """The last round that was begun, as far as it was written before a crash."""
    finals = sibling(study)
    return None if finals is None else _round_of(finals)


def _round_of(finals: optuna.Study) -> Round | None:
    said = finals.user_attrs.get("round")
    return None if said is None else Round(**said)


def require_same_epochs(study: optuna.Study, epochs: int | None) -> None:
    """Raises StudyError if finalists were trained for another number of epochs, because they could not be compared."""
    begun = begun_round(study)
    if begun is not None and epochs not in (None, begun.epochs):
        raise StudyError(
            f"the finalists of study {study.study_name!r} were trained for {begun.epochs} epochs, so results of {epochs} "
            "epochs would not be comparable",
            hint=f"use --finalist-epochs {begun.epochs}, or leave it out",
        )


def create_sibling_study(study: optuna.Study, asked: Round) -> optuna.Study:
    """Finds or creates the sibling study. Raises StudyError like `require_same_epochs`."""
    require_same_epochs(study, asked.epochs)
    found = sibling(study) or create_other_study(study, study.study_name + FINALISTS)
    found.pruner, found.sampler = optuna.pruners.NopPruner(), optuna.samplers.RandomSampler()
    found.set_user_attr("round", asdict(asked))
    return found


def enqueue_trainings(finals: optuna.Study, chosen: Sequence[FrozenTrial], asked: Round) -> int:
    """Adds the missing trainings: all networks with the first seed, then all with the second. Waiting trainings of an earlier
    round that are no longer wanted fail. Returns the number of trials of the sibling study that have not failed."""
    wanted = {(trial.number, seed) for trial in chosen for seed in range(asked.seeds)}
    for trial in finals.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if (trial.user_attrs.get("finalist"), trial.user_attrs.get("seed")) not in wanted:
            give_up(finals, trial)
    kept = [trial for trial in finals.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]
    there = {(trial.user_attrs["finalist"], trial.user_attrs["seed"]) for trial in kept}
    for seed in range(asked.seeds):
        for trial in chosen:
            if (trial.number, seed) not in there:
                attributes: dict[str, Any] = {name: trial.user_attrs[name] for name in SHOWN if name in trial.user_attrs}
                attributes |= {"finalist": trial.number, "seed": seed}
                finals.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, user_attrs=attributes))
    return sum(trial.state != TrialState.FAIL for trial in finals.get_trials(deepcopy=False))


class FinalistSource(TrialSource):
    """Trains the enqueued finalists."""

    def __init__(
        self, finals: optuna.Study, search: StudyPaths, asked: Round, *, seed: int, config: StudyConfig, space: Space, **more: Any
    ) -> None:
        """`search` has the candidates; `config`, `space`: those of the search; `more`: see `TrialSource`."""
        super().__init__(finals, search.finalists, epochs=asked.epochs, seed=mix_seed(seed, FINALS), **more)
        self._search, self._config, self._space = search, config, space

    def begin_draw(self) -> None:
        self.busy = True

    def work(self) -> None:
        self.busy = False
        try:
            if self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                self._queue(self.study.ask())
                return
        except NasError as error:
            self.error = error
            return
        self.exhausted = "the training of a finalist failed; the same command tries again"
        self.display.note(self.exhausted)

    def adopt_undecided(self, frozen: FrozenTrial) -> None:
        self._queue(live_trial(self.study, frozen))
        self.ready[-1].known.update(frozen.intermediate_values)

    def _queue(self, trial: optuna.Trial) -> None:
        """Raises StudyError if the file of that network is missing in the search's folder."""
        number = trial.user_attrs["finalist"]
        if not (file := self._search.trial(number).candidate).is_file():
            raise StudyError(
                f"{file}, the network of a finalist, is missing", hint="restore it from a copy, or use --finalists 0"
            )
        search = find_other_study(self.study, self.study.study_name.removesuffix(FINALISTS))
        assert search is not None, "its database holds both"
        candidate = trial_candidate(self._search, search.get_trials(deepcopy=False)[number])
        candidate = candidate.model_copy(update={"train": candidate.train.model_copy(update={"epochs": self.progress.epochs})})
        macs, longer = trial.user_attrs.get("macs", 0), self.progress.epochs / self._space.epochs
        candidate = candidate.as_trial(self._config, macs, self._space.budget.macs, longer)
        if (images := candidate.train.epoch_images) is not None:
            trial.set_user_attr("epoch_images", images)
        self.ready.append(Drawn(trial, candidate, trial.user_attrs["params"], macs, trial.user_attrs.get("micro_batches", 1)))


def finalists_of(study: optuna.Study) -> list[Finalist]:
    """Best first, by the mean over the seeds that all of them have. Empty without finalists."""
    finals = sibling(study)
    if finals is None or (begun := _round_of(finals)) is None:
        return []
    by_number: dict[int, dict[int, float]] = defaultdict(dict)
    for trial in finals.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        by_number[trial.user_attrs["finalist"]][trial.user_attrs["seed"]] = trial.value or 0.0
    if not by_number:
        return []
    shared = set.intersection(*(set(values) for values in by_number.values()))
    found = [
        Finalist(number, begun.epochs, tuple(values[seed] for seed in sorted(values))) for number, values in by_number.items()
    ]

    def rank(one: Finalist) -> tuple[float, ...]:
        values = by_number[one.number]
        over = [values[seed] for seed in shared] or list(one.accuracies)
        return -fmean(over), -len(one.accuracies), one.number

    return sorted(found, key=rank)


def best_of(study: optuna.Study) -> tuple[FrozenTrial | None, Finalist | None]:
    """The trial that `best` means: the finalist with the highest mean, or without finalists the trial with the highest
    accuracy."""
    trials = study.get_trials(deepcopy=False)
    for winner in finalists_of(study):
        return trials[winner.number], winner
    return next(iter(outcomes.best_trials(trials, 1)), None), None

"""Networks by name: `best`, `top:5`, a trial's number, or `preset:NAME`; with their recipes and their results in the search. Runs
by name, and the run that is used by default."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from nas.config import Candidate, Frozen
from nas.errors import ConfigError, NasError, StudyError, choices_sentence
from nas.files import write_whole
from nas.paths import PRESET, StudyPaths, TrialPaths, existing_study
from nas.runs.card import BySeed, ModelCard, read_card
from nas.runs.statistics import Expectation, after_choice
from nas.space.space_file import load_preset
from nas.specs import Criterion
from nas.study.finalists import best_of, finalists_of
from nas.study.outcomes import best_trials, last_value
from nas.study.settings import PRESETS_SPACE, read_settings
from nas.study.storage import open_study
from nas.study.trials import trial_candidate

TOP = "top:"
EPOCH_FACTOR = 4  # by default a retraining is so many times as long as a training of the search


@dataclass(frozen=True)
class Subject:
    """A network to train or to show."""

    title: str  # `trial 7`, or `preset:resnet-2322`
    slug: str  # The same as part of a folder's name
    candidate: Candidate
    default_epochs: int
    accuracy: float | None = None
    """On the validation images of the search, by its metric; for the winner among finalists the mean over its finalist
    trainings."""
    accuracy_epochs: int | None = None  # after which it was measured
    micro_batches: int = 1  # Parts of a batch that fitted into memory in the search


def preset_subject(name: str) -> Subject:
    preset = load_preset(name)
    return Subject(f"{PRESET}{preset.name}", preset.name, preset.candidate, preset.candidate.train.epochs)


def find_subject(paths: StudyPaths, which: str) -> Subject:
    """`best`, a trial's number, or a preset. Raises NasError with the choices."""
    if which.startswith(PRESET):
        return preset_subject(which)
    study = open_study(paths)
    trials = study.get_trials(deepcopy=False)
    finalist = None
    if which == "best":
        trial, finalist = best_of(study)
        if trial is None:
            raise none_is_best(paths)
    else:
        known = {str(t.number): t for t in trials if paths.trial(t.number).candidate.is_file()}
        if which not in known:
            choices = choices_sentence(which, ["best", *known, "preset:NAME"])
            raise StudyError(
                f"{which!r} is not a trained trial of study {paths.name!r}.{choices}",
                hint=f"nas list --study {paths.name}   shows the trials",
            )
        trial = known[which]
    candidate = trial_candidate(paths, trial)
    length = candidate.train.whole_epochs(read_settings(paths).train_images or 1)
    epochs, parts = math.ceil(EPOCH_FACTOR * length), trial.user_attrs.get("micro_batches", 1)
    measured = (finalist.mean, finalist.epochs) if finalist else (last_value(trial), max(trial.intermediate_values, default=None))
    return Subject(f"trial {trial.number}", f"trial-{trial.number:04d}", candidate, epochs, *measured, parts)


def find_names(paths: StudyPaths, words: Sequence[str]) -> tuple[str, ...]:
    """Each of `best`, trial numbers and presets, alone or joined by commas; `top:K` becomes the K best networks of the search:
    finalists by their means, then other trials by accuracy. Without duplicates. Raises NasError with the choices."""
    found: dict[str, str] = {}
    for name in (name for word in words for name in word.split(",") if name):
        for one in _top(paths, name) if name.startswith(TOP) else [name]:
            found.setdefault(find_subject(paths, one).title, one)
    if not found:
        raise ConfigError("no network is named", hint="name `best`, `top:5`, a trial number, or preset:NAME")
    return tuple(found.values())


def _top(paths: StudyPaths, name: str) -> list[str]:
    study = open_study(paths)
    trials = study.get_trials(deepcopy=False)
    ranked = [finalist.number for finalist in finalists_of(study)]
    ranked += [trial.number for trial in best_trials(trials, len(trials)) if trial.number not in ranked]
    if not ranked:
        raise none_is_best(paths)
    wanted = name.removeprefix(TOP)
    if not wanted.isdecimal() or not 1 <= int(wanted) <= len(ranked):
        raise ConfigError(
            f"{TOP}K takes 1 to {len(ranked)} networks, the number of completed trials in study {paths.name!r}, not {wanted!r}",
            hint=f"{TOP}{min(5, len(ranked))}",
        )
    return [str(number) for number in ranked[: int(wanted)]]


def none_is_best(paths: StudyPaths) -> StudyError:
    """The error for a study without a completed trial."""
    hint = f"nas search --study {paths.name}   continues; nas list --study {paths.name}   shows the trials"
    if read_settings(paths).space == PRESETS_SPACE:
        hint = "this study only has presets: nas retrain preset:NAME; nas presets shows the names"
    return StudyError(f"study {paths.name!r} has no completed trial yet", hint=hint)


def is_folder(run: str | None) -> bool:
    """Whether `run` is a path; a word without separators is always a name."""
    return run is not None and (run in (".", "..") or run.startswith("~") or os.sep in run or (os.altsep or os.sep) in run)


def study_of(run: str | None, study: str | None) -> StudyPaths | None:
    """The study of a run; None for a folder outside any study. Raises StudyError."""
    if run is None or not is_folder(run):
        try:
            return existing_study(study)
        except StudyError as error:
            if run is not None and TrialPaths(Path(run)).card.is_file():
                raise StudyError(error.message, hint=f"if you mean the folder here, write .{os.sep}{run}") from None
            raise
    if study is not None:
        raise StudyError(
            f"{run} names a run by its folder, which needs no study, but --study {study} was given",
            hint="leave out --study, or use the name that nas runs shows",
        )
    folder = Path(run).expanduser().resolve()
    owner = StudyPaths(folder.parent.parent)
    return owner if folder.parent == owner.retrained and owner.settings.is_file() else None


def folders_with(folder: Path, name: str) -> list[Path]:
    """The folders in `folder` with a file of this name, oldest file first."""
    return [file.parent for file in sorted(folder.glob(f"*/{name}"), key=lambda file: file.stat().st_mtime)]


def finished_runs(paths: StudyPaths) -> list[TrialPaths]:
    """Oldest first."""
    return [TrialPaths(folder) for folder in folders_with(paths.retrained, "model.json")]


def find_run(
    paths: StudyPaths | None, name: str | None, note: Callable[[str], None] = lambda text: None, option: str = "--run "
) -> TrialPaths:
    """The run of this name or folder. `best`, a trial's number and `preset:NAME` mean the latest run of that network; None and
    `chosen` mean the run of `find_chosen`.

    If there are several runs, `note` receives which one is used and why, and what else may be meant; `option` is what the command
    puts before a run's name. Raises StudyError with the existing runs.
    """
    if name is not None and is_folder(name):
        return _run_in(name)
    assert paths is not None, "only a folder needs no study"
    runs = finished_runs(paths)
    if not runs:
        raise StudyError(
            f"study {paths.name!r} has no retrained network yet",
            hint=f"nas retrain best --study {paths.name}   creates one",
        )
    if name is None or name == CHOSEN:
        chosen = find_chosen(paths)
        assert chosen is not None, "there are runs"
        for sentence in chosen.sentences(option):
            note(sentence)
        return chosen.run
    by_name = {run.folder.name: run for run in runs}
    if name in by_name:
        return by_name[name]
    if name == "best" or name.isdecimal() or name.startswith(PRESET):
        title = find_subject(paths, name).title
        if found := [run for run in runs if read_card(run).subject == title]:
            if name == "best" and (chosen := find_chosen(paths)) is not None and chosen.run != found[-1]:
                note(
                    f"Warning: `best` means the best trial of the search, {title}, and its latest run {found[-1].folder.name}; "
                    f"{option}{CHOSEN} uses {chosen.name}, {chosen.why}"
                )
            return found[-1]
        raise StudyError(
            f"{title} of study {paths.name!r} has not been retrained.{choices_sentence(name, by_name)}",
            hint=f"nas retrain {name} --study {paths.name}",
        )
    here = TrialPaths(Path(name)).card.is_file()
    raise StudyError(
        f"{name!r} is not a retrained network of study {paths.name!r}.{choices_sentence(name, by_name)}",
        hint=f"if you mean the folder here, write .{os.sep}{name}" if here else f"nas runs --study {paths.name}   lists them",
    )


def _run_in(name: str) -> TrialPaths:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        what = "is a file, but a run is a folder" if folder.exists() else "is not there"
        raise StudyError(f"{folder} {what}", hint="name the folder with the run's model.json and model.safetensors")
    return TrialPaths(folder.resolve())  # the name of the folder `.` is needed


CRITERIA: tuple[Criterion, ...] = ("clean", "shifted")


@dataclass(frozen=True, kw_only=True)
class Network(BySeed[ModelCard]):
    """A retrained network."""

    runs: dict[int, TrialPaths]  # By seed, like its cards

    @property
    def card(self) -> ModelCard:
        return next(iter(self.cards.values()))

    def best_run(self, by: Criterion) -> tuple[TrialPaths, ModelCard]:
        """The run with the highest score; the first of several."""
        scores = self.scores(by)
        seed = max(self.cards, key=lambda seed: scores.get(seed, -math.inf))
        return self.runs[seed], self.cards[seed]


def group(runs: Iterable[tuple[TrialPaths, ModelCard]]) -> tuple[Network, ...]:
    """Groups runs by their network."""
    by_subject: dict[str, Network] = {}
    for run, card in runs:
        network = by_subject.setdefault(card.subject, Network(cards={}, runs={}))
        network.cards[card.seed], network.runs[card.seed] = card, run
    return tuple(by_subject.values())


def expected(networks: Sequence[Network], chosen: str) -> dict[Criterion, Expectation]:
    """Expected accuracy, clean and shifted, on new images of the run `chosen`, which was chosen among all of these on the
    held-out images. Empty if they chose nothing."""
    held_out = [[card.held_out for card in network.cards.values() if card.held_out] for network in networks]
    names = [[network.runs[seed].folder.name for seed, card in network.cards.items() if card.held_out] for network in networks]
    places = [(i, of.index(chosen)) for i, of in enumerate(names) if chosen in of]
    if not places or sum(map(len, held_out)) < 2 or [] in held_out:
        return {}
    network, seed = places[0]
    clean, shifted = ([[getattr(one, name) for one in of] for of in held_out] for name in ("accuracy", "shifted_accuracy"))
    counted = held_out[network][seed]
    return {
        "clean": after_choice(clean, network, seed, counted.counted),
        "shifted": after_choice(shifted, network, seed, counted.shifted_counted),
    }


def rank(networks: Sequence[Network], by: Criterion) -> Sequence[Network] | None:
    """By the held-out images, else by the search; None if several networks have neither score."""
    if len(networks) == 1:
        return networks
    means = [found.mean if (found := network.over_seeds(by)) else None for network in networks]
    if None in means:
        means = [network.card.search_accuracy for network in networks]
    if None in means:
        return None
    return [network for _, network in sorted(zip(means, networks, strict=True), key=lambda pair: -(pair[0] or 0.0))]


CHOSEN = "chosen"
CHOSEN_BY = {
    "clean": "by the accuracy on held-out images",
    "shifted": "by the accuracy on held-out images under the simulated shift",
    "search": "by the accuracy in the search",
    "order": "as the first, because nothing was evaluated",
}


class Choice(Frozen):
    """The choice of `nas retrain` among several runs, stored in `StudyPaths.choice`."""

    run: str
    by: Literal["clean", "shifted", "search", "order"]
    networks: tuple[str, ...]  # The candidates, by the names in their cards, best first
    among: tuple[str, ...]  # All runs of these networks
    beside: tuple[str, ...]  # Other runs that existed before
    created: str

    @property
    def why(self) -> str:
        of = self.networks[0] if len(self.networks) == 1 else f"{len(self.networks)} networks"
        return f"chosen on {self.created[:10]} among {len(self.among)} runs of {of}, {CHOSEN_BY[self.by]}"


@dataclass(frozen=True)
class Chosen:
    """The run that all commands use by default."""

    run: TrialPaths
    why: str
    newer: tuple[str, ...] = ()  # Later runs that are not used, oldest first
    choice: Choice | None = None  # The recorded choice, if the run is used because of it
    trouble: str | None = None  # Why a recorded choice could not be used
    alone: bool = False  # Whether there is no other run

    @property
    def name(self) -> str:
        return self.run.folder.name

    def sentences(self, option: str = "--run ") -> list[str]:
        """The run, if there are several, and warnings. `option` is what a command puts before a run's name."""
        said = [] if self.alone else [f"Network {self.name}: {self.why}"]
        if self.trouble is not None:
            said.append(f"Warning: {self.trouble}")
        if self.newer:
            more = f" and {len(self.newer) - 1} more were" if len(self.newer) > 1 else " was"
            said.append(f"Warning: {self.newer[-1]}{more} trained later and not used: {option}{self.newer[-1]} uses it")
        return said


def find_chosen(paths: StudyPaths) -> Chosen | None:
    """The run that the last choice among several retrained networks chose; else a run of the search's best trial: the one chosen
    among its seeds, else the latest; else the latest run. None without runs."""
    runs = finished_runs(paths)
    if not runs:
        return None
    names, trouble = [run.folder.name for run in runs], None
    choice: Choice | None = None
    try:
        choice = read_choice(paths)
    except NasError as error:
        trouble = f"the choice among retrained networks cannot be read: {error.message}"
    if choice is not None and choice.run not in names:
        trouble = f"{choice.run}, {choice.why}, is gone"
        choice = None
    subjects, best = [], None
    if choice is None or len(choice.networks) == 1:
        subjects = [_subject_of(run) for run in runs]
        if len(set(subjects)) > 1:
            try:
                best = best_of(open_study(paths))[0]
            except NasError as error:
                trouble = f"the best trial of the search is unknown: {error.message}"
    title = None if best is None else f"trial {best.number}"
    of_best = [index for index, subject in enumerate(subjects) if subject == title and title is not None]
    newer: tuple[str, ...] = ()
    if choice is not None and (not of_best or choice.networks == (title,)):
        taken, why = names.index(choice.run), choice.why
        newer = tuple(name for name in names if name not in {*choice.among, *choice.beside})
    elif of_best:
        taken, why, choice = of_best[-1], f"the latest run of the best trial of the search, {title}", None
        newer = tuple(names[taken + 1 :])
    else:
        taken, why = (
            len(runs) - 1,
            "the latest run" + (f"; the best trial of the search, {title}, has not been retrained" if title else ""),
        )
    return Chosen(runs[taken], why, newer, choice, trouble, alone=len(runs) == 1)


def _subject_of(run: TrialPaths) -> str | None:
    """None if its card is damaged."""
    try:
        return read_card(run).subject
    except (NasError, OSError):
        return None


def read_choice(paths: StudyPaths) -> Choice | None:
    """Raises ConfigError if the file is damaged."""
    return Choice.from_file(paths.choice) if paths.choice.is_file() else None


def record_choice(paths: StudyPaths, ranked: Sequence[Network], by: Criterion) -> None:
    """`ranked`: best first. Several seeds of one network choose a run, but no network: the choice is recorded only if that
    network is the default anyway, and if no choice among several networks exists. Raises OSError."""
    first, among = ranked[0], [run.folder.name for network in ranked for run in network.runs.values()]
    if len(among) == 1:
        return
    if len(ranked) == 1 and (taken := find_chosen(paths)) is not None:
        several = taken.choice is not None and len(taken.choice.networks) > 1
        if several or _subject_of(taken.run) != first.card.subject:
            return
    choice = Choice(
        run=first.best_run(by)[0].folder.name,
        by=by if first.scores(by) else "search" if len(ranked) > 1 else "order",
        networks=tuple(network.card.subject for network in ranked),
        among=tuple(among),
        beside=tuple(name for run in finished_runs(paths) if (name := run.folder.name) not in among),
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
    )
    write_whole(paths.choice, (choice.to_json() + "\n").encode())

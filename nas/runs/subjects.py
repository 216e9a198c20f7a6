"""Networks by name: `best`, `top:5`, a trial's number, or `preset:NAME`; with their recipes and what the search says of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from nas.config import Candidate
from nas.errors import ConfigError, StudyError, choices_sentence
from nas.paths import StudyPaths
from nas.space.presets import PREFIX, load_preset
from nas.study.finalists import best_of, finalists_of
from nas.study.outcomes import best_trials, last_value
from nas.study.settings import PRESETS_SPACE, read_settings
from nas.study.storage import open_study

TOP = "top:"
EPOCH_FACTOR = 4
"""A retraining is by default so many times longer than a training of the search."""


@dataclass(frozen=True)
class Subject:
    """A network to train or to show."""

    title: str
    """`trial 7`, or `preset:resnet-2322`."""
    slug: str
    """The same as part of a folder's name."""
    candidate: Candidate
    default_epochs: int
    accuracy: float | None = None
    """On the validation images, in the search, by its metric; of a search's winner the mean over its trainings as a finalist."""
    micro_batches: int = 1
    """Parts of a batch that fitted in memory there."""


def preset_subject(name: str) -> Subject:
    preset = load_preset(name)
    return Subject(f"{PREFIX}{preset.name}", preset.name, preset.candidate, preset.candidate.train.epochs)


def find_subject(paths: StudyPaths, which: str) -> Subject:
    """`best`, a trial's number, or a preset. Raises NasError with the choices."""
    if which.startswith(PREFIX):
        return preset_subject(which)
    study = open_study(paths)
    trials = study.get_trials(deepcopy=False)
    accuracy = None
    if which == "best":
        trial, finalist = best_of(study)
        accuracy = finalist.mean if finalist else None
        if trial is None:
            raise none_is_best(paths)
    else:
        known = {str(t.number): t for t in trials if paths.trial(t.number).candidate.is_file()}
        if which not in known:
            choices = choices_sentence(which, ["best", *known, "preset:NAME"])
            raise StudyError(
                f"{which!r} is no trial of study {paths.name!r} that was trained.{choices}",
                hint=f"nas list --study {paths.name}   shows the trials",
            )
        trial = known[which]
    file = paths.trial(trial.number).candidate
    candidate = Candidate.from_json(file.read_bytes(), source=str(file))
    epochs, parts = EPOCH_FACTOR * candidate.train.epochs, trial.user_attrs.get("micro_batches", 1)
    accuracy = last_value(trial) if accuracy is None else accuracy
    return Subject(f"trial {trial.number}", f"trial-{trial.number:04d}", candidate, epochs, accuracy, parts)


def find_names(paths: StudyPaths, words: Sequence[str]) -> tuple[str, ...]:
    """Each of `best`, numbers and presets, alone or several joined by commas; `top:K` as the K best networks of the search: its
    finalists by their means, then by accuracy. None twice. Raises NasError with the choices."""
    found: dict[str, str] = {}
    for name in (name for word in words for name in word.split(",") if name):
        for one in _top(paths, name) if name.startswith(TOP) else [name]:
            found.setdefault(find_subject(paths, one).title, one)
    if not found:
        raise ConfigError("no network is named", hint="name `best`, `top:5`, a trial's number, or preset:NAME")
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
            f"{TOP}K takes 1 to {len(ranked)} networks, as many as study {paths.name!r} has trained to the end, not {wanted!r}",
            hint=f"{TOP}{min(5, len(ranked))}",
        )
    return [str(number) for number in ranked[: int(wanted)]]


def none_is_best(paths: StudyPaths) -> StudyError:
    """Of a study in which nothing has run to its end."""
    hint = f"nas search --study {paths.name}   trains on; nas list --study {paths.name}   shows the trials"
    if read_settings(paths).space == PRESETS_SPACE:
        hint = "this study only holds presets: nas retrain preset:NAME; nas presets shows the names"
    return StudyError(f"no training of study {paths.name!r} has run to its end yet, so that none is best", hint=hint)

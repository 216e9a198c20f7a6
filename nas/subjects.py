"""A network by name: `best`, a trial's number, or `preset:NAME`; with its recipe and what the search says of it."""

from dataclasses import dataclass

from nas.config import Candidate
from nas.errors import StudyError, choices_sentence
from nas.paths import StudyPaths
from nas.presets import PREFIX, load_preset
from nas.search.finalists import best_of
from nas.search.outcomes import last_value
from nas.search.settings import PRESETS_SPACE, read_settings
from nas.search.storage import open_study

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
    candidate = Candidate.from_json(file.read_text(), source=str(file))
    epochs, parts = EPOCH_FACTOR * candidate.train.epochs, trial.user_attrs.get("micro_batches", 1)
    accuracy = last_value(trial) if accuracy is None else accuracy
    return Subject(f"trial {trial.number}", f"trial-{trial.number:04d}", candidate, epochs, accuracy, parts)


def none_is_best(paths: StudyPaths) -> StudyError:
    """Of a study in which nothing has run to its end."""
    hint = f"nas search --study {paths.name}   trains on; nas list --study {paths.name}   shows the trials"
    if read_settings(paths).space == PRESETS_SPACE:
        hint = "this study only holds presets: nas retrain preset:NAME; nas presets shows the names"
    return StudyError(f"no training of study {paths.name!r} has run to its end yet, so that none is best", hint=hint)

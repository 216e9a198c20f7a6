"""The start of a search: known candidates are enqueued before anything is drawn.

A candidate fits if the space can build exactly this network within the budget. Its recipe is changed to the nearest one of the
space, because the study compares networks by their results with it.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from nas.budget import Budget
from nas.config import ArchConfig, Candidate
from nas.data.loader import mix_seed
from nas.errors import ConfigError, NasError, StudyError, choices_sentence
from nas.files import write_whole
from nas.paths import StudyPaths, existing_study, shipped_names
from nas.space.space import Space
from nas.space.space_file import load_preset
from nas.study.finalists import best_of
from nas.study.outcomes import last_value, outcome_of
from nas.study.settings import StudySettings, read_settings
from nas.study.storage import open_study, plain_study
from nas.study.trials import trial_candidate

STUDY_PREFIX, OPTUNA_PREFIX = "study:", "optuna:"
RESULTS = ("trained", "pruned_early")
OF_ITS_STUDY = ("excess", "limit")  # attributes of a trial that only mean something in its own study
STARTING_POINTS = 10  # networks of another study that are trained again at most


@dataclass(frozen=True)
class Start:
    """A candidate to begin with, and where it comes from."""

    origin: str  # `preset:resnet-2322`, `study:NAME trial 7`, or what the user named
    candidate: Candidate | None  # None if only `parameters` are known
    result: optuna.trial.FrozenTrial | None = None
    """The trial, if its data and training were the same as here, so that it counts as a result."""
    parameters: dict[str, Any] = field(default_factory=dict)  # of a trial of a plain Optuna study, by its own names


@dataclass(frozen=True)
class Fitted:
    """A start, and whether it fits."""

    start: Start
    values: dict[str, Any] | None  # to begin with; None if it does not fit
    reasons: list[str]  # why it does not fit, or how its recipe was changed

    @property
    def is_result(self) -> bool:
        """Whether it need not be trained again."""
        return self.values is not None and self.start.result is not None and not self.reasons


def find_starts(what: str, settings: StudySettings) -> list[Start]:
    """`presets`, `study:NAME`, `optuna:URL/NAME`, or one network: `preset:NAME`, STUDY/TRIAL, a file candidate.json. Raises
    NasError."""
    if what == "presets":
        return [Start(f"preset:{name}", load_preset(name).candidate) for name in shipped_names("preset")]
    kind, _, name = what.partition(":")
    if kind == "preset" and name:
        return [Start(what, load_preset(name).candidate)]
    if kind == "study" and name:
        return _starts_of_study(existing_study(name), settings)
    if kind == "optuna" and name:
        return _starts_of_optuna(name)
    if what.endswith(".json"):
        return [Start(what, _candidate_in(Path(what)))]
    name, _, number = what.rpartition("/")
    if name and (number == "best" or number.isdecimal()):
        return [_trial_of(existing_study(name), number, what, settings)]
    raise ConfigError(
        "--warm-start takes presets, preset:NAME, study:NAME, optuna:URL/NAME, STUDY/TRIAL or a file candidate.json, not "
        f"{what!r}",
        hint="for example --warm-start digits/best, or --warm-start studies/digits/trials/0003/candidate.json",
    )


def _candidate_in(file: Path) -> Candidate:
    """From the folder of a trial or a run: candidate.json, or model.json, which contains it. Raises ConfigError."""
    if not file.is_file():
        raise ConfigError(f"there is no file {file}", hint="a folder of a trial or run has a candidate.json")
    with suppress(ValueError, KeyError, TypeError):
        return Candidate.model_validate(json.loads(file.read_bytes())["candidate"])
    return Candidate.from_file(file)


def _trial_of(paths: StudyPaths, which: str, origin: str, settings: StudySettings) -> Start:
    """Raises StudyError."""
    study = open_study(paths)
    known = {str(trial.number): trial for trial in study.get_trials(deepcopy=False) if outcome_of(trial) in RESULTS}
    trial = best_of(study)[0] if which == "best" else known.get(which)
    if trial is None or not paths.trial(trial.number).candidate.is_file():
        raise StudyError(
            f"{which!r} is not a trained trial of study {paths.name!r}.{choices_sentence(which, ['best', *known])}",
            hint=f"nas list --study {paths.name}   shows the trials",
        )
    same = read_settings(paths).same_trainings_as(settings)
    return Start(origin, trial_candidate(paths, trial), trial if same else None)


def _starts_of_study(paths: StudyPaths, settings: StudySettings) -> list[Start]:
    """Best first. Pruned trials are included if the trainings were the same, because they then count as results."""
    same = read_settings(paths).same_trainings_as(settings)
    wanted = RESULTS if same else ("trained",)
    starts = []
    ended = open_study(paths).get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    for trial in sorted(ended, key=lambda t: last_value(t) or 0.0, reverse=True):
        if outcome_of(trial) not in wanted or not paths.trial(trial.number).candidate.is_file():
            continue
        candidate = trial_candidate(paths, trial)
        starts.append(Start(f"{STUDY_PREFIX}{paths.name} trial {trial.number}", candidate, trial if same else None))
    return starts


def _starts_of_optuna(address: str) -> list[Start]:
    """Completed trials of a plain Optuna study at `URL/NAME`, best first. Writes nothing there. Raises ConfigError."""
    url, _, name = address.rpartition("/")
    study = plain_study(url, name)
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(study.directions) > 1:
        raise ConfigError(
            f"the study {name!r} has {len(study.directions)} objectives, so it has no single best trial",
            hint="start without --warm-start, and add a trial of the Pareto front (study.best_trials) to the new study with "
            "Optuna's study.enqueue_trial(trial.params)",
        )
    best_first = sorted(trials, key=lambda t: t.value or 0.0, reverse=study.direction == optuna.study.StudyDirection.MAXIMIZE)
    return [Start(f"{OPTUNA_PREFIX}{name} trial {trial.number}", None, parameters=trial.params) for trial in best_first]


def fit_starts(starts: list[Start], space: Space, budget: Budget) -> list[Fitted]:
    """Whether each start fits. Of another study's networks that must be trained again, only the best few completed ones are
    taken: a search that begins with all of them finds nothing new."""
    fitted = []
    again = 0
    for start in starts:
        one = fit_start(start, space, budget)
        if one.values is not None and start.origin.startswith((STUDY_PREFIX, OPTUNA_PREFIX)) and not one.is_result:
            complete = start.result is None or start.result.state == TrialState.COMPLETE
            again += complete
            if not complete:
                one = Fitted(start, None, ["pruned early, and its recipe does not fit this space", *one.reasons])
            elif again > STARTING_POINTS:
                one = Fitted(start, None, [f"not among the best {STARTING_POINTS}, which are trained again"])
        fitted.append(one)
    return fitted


def fit_start(start: Start, space: Space, budget: Budget) -> Fitted:
    if start.candidate is None:
        return _fit_parameters(start, space, budget)
    values = space.values_nearest_to(start.candidate)
    rebuilt = space.candidate(space.first_values | values)
    wanted, built = (_flat_arch(candidate.arch) for candidate in (start.candidate, rebuilt))
    described = space.describe()
    reasons = [
        f"{name} {wanted[name]}: the space has {_range_of(name, described, built)}"
        for name in wanted
        if built.get(name) != wanted[name]
    ]
    if reasons:
        return Fitted(start, None, reasons)
    if (excess := _why_not_affordable(start.candidate.arch, budget)) is not None:
        return Fitted(start, None, [excess])
    theirs, ours = (flat(c.train.canonical().model_dump()) for c in (start.candidate, rebuilt))
    lengths = ("epochs", "epoch_images")  # of the search, and of the compute of a trial
    changed = [f"{name} {theirs[name]} → {ours[name]}" for name in theirs if theirs[name] != ours[name] and name not in lengths]
    return Fitted(start, values, changed)


def _fit_parameters(start: Start, space: Space, budget: Budget) -> Fitted:
    """It fits if it has all parameters of the architecture that the space draws, with the space's names and within its ranges."""
    slots, described = space.by_name, space.describe()
    values = {name: value for name, value in start.parameters.items() if name in slots}
    reasons = [
        f"{name} {value}: the space has {described[name]}" for name, value in values.items() if not slots[name].holds(value)
    ]
    if reasons:
        return Fitted(start, None, reasons)
    # For stages that the network lacks, any value means the same network.
    first, last = (space.candidate({n: slots[n].ends()[end] for n in slots} | values) for end in (0, -1))
    unsaid = [name for name, slot in slots.items() if slot.drawn and name not in values]
    if first.arch.canonical() != last.arch.canonical():
        missing = [name for name in unsaid if slots[name].path[0] == "arch"]
        return Fitted(start, None, [f"the trial has no parameter {', '.join(missing)}"])
    if (excess := _why_not_affordable(first.arch, budget)) is not None:
        return Fitted(start, None, [excess])
    unknown = [f"{name} {value}: no parameter of the space" for name, value in start.parameters.items() if name not in slots]
    return Fitted(start, values, unknown + [f"{name}: drawn" for name in unsaid if slots[name].path[0] == "train"])


def _why_not_affordable(arch: ArchConfig, budget: Budget) -> str | None:
    """None if the network can be built and fits the budget."""
    try:
        cost = budget.check(arch)
    except NasError as error:
        return error.message
    return None if cost.fits else cost.sentence(budget.limits)


def _flat_arch(arch: ArchConfig) -> dict[str, Any]:
    return flat(arch.canonical().model_dump() | {"block_source": arch.block_source and str(arch.block_source)})


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """`{"stages.0.channels": 64, …}` of nested dicts and of tuples of them."""
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, tuple) and tree and isinstance(tree[0], dict):
        items = dict(enumerate(tree)).items()
    else:
        return {prefix: tree}
    found: dict[str, Any] = {}
    for key, value in items:
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _range_of(name: str, described: dict[str, str], built: dict[str, Any]) -> str:
    """The space's words for a field of `ArchConfig`: `stages.0.channels` is the slot `stage0.channels`."""
    parts = name.split(".")
    slot = f"stage{parts[1]}.{parts[2]}" if parts[0] == "stages" and len(parts) == 3 else name
    return described.get(slot, str(built.get(name, described["stages"] + " stages")))


def enqueue(study: optuna.Study, space: Space, fitted: list[Fitted], paths: StudyPaths, seed: int) -> None:
    """Enqueues what fits in a study that has not begun: results as finished trials, everything else as the first trials to train.
    Keeps what an interrupted run had added.

    For stages that a network lacks, any value means the same network; a network that is trained again gets random values for
    them, from `seed`.
    """
    there = {trial.user_attrs.get("origin") for trial in study.get_trials(deepcopy=False)}
    drawn = {slot.name: slot for slot in space.slots if slot.drawn}
    for one in fitted:
        if one.values is None or one.start.origin in there:
            continue
        params, result, number = {}, one.start.result if one.is_result else None, len(study.get_trials(deepcopy=False))
        uniform = optuna.samplers.RandomSampler(mix_seed(seed, number) % 2**32)
        trial = optuna.trial.create_trial(state=TrialState.WAITING)
        for name, slot in drawn.items():
            if name in one.values:
                params[name] = one.values[name]
            elif result is not None:
                params[name] = slot.nearest(result.params.get(name, slot.ends()[0]))
            else:
                params[name] = uniform.sample_independent(study, trial, name, slot.domain)
        attributes: dict[str, Any] = {"origin": one.start.origin}
        if result is not None and one.start.candidate is not None:
            write_whole(paths.trial(number).candidate, one.start.candidate.to_json().encode())
            kept = {name: value for name, value in result.user_attrs.items() if name not in OF_ITS_STUDY}
            attributes = {**kept, **attributes, "imported": True}
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.WAITING if result is None else result.state,
                value=None if result is None else result.value,
                params=params,
                distributions=space.distributions,
                user_attrs=attributes,
                intermediate_values={} if result is None else result.intermediate_values,
            )
        )

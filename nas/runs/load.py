"""A retrained network, found by its run's name or folder and loaded from it, whose files are those that were written."""

import json
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nas.errors import StudyError, choices_sentence
from nas.files import sha256_of
from nas.models import ResNet, build_model
from nas.paths import StudyPaths, TrialPaths, existing_study
from nas.runs.card import ModelCard, card_file, read_card, read_sealed_card, weights_file
from nas.runs.subjects import find_subject
from nas.space.presets import PREFIX


def is_folder(run: str | None) -> bool:
    """Whether a run is named by where it lies: a bare word is always a name."""
    return run is not None and (run in (".", "..") or run.startswith("~") or os.sep in run or (os.altsep or os.sep) in run)


def study_of(run: str | None, study: str | None) -> StudyPaths | None:
    """The study in which a run is to be looked for; None for a folder outside any study. Raises StudyError."""
    if run is None or not is_folder(run):
        try:
            return existing_study(study)
        except StudyError as error:
            if run is not None and card_file(TrialPaths(Path(run))).is_file():
                raise StudyError(error.message, hint=f"the folder that is here is named as .{os.sep}{run}") from None
            raise
    if study is not None:
        raise StudyError(
            f"a run that is named by its folder, {run}, is looked for in no study, so that --study {study} means nothing",
            hint="leave --study out, or name the run as nas runs lists it",
        )
    folder = Path(run).expanduser().resolve()
    owner = StudyPaths(folder.parent.parent)
    return owner if folder.parent == owner.retrained and owner.settings.is_file() else None


def finished_runs(paths: StudyPaths) -> list[TrialPaths]:
    """Oldest first."""
    files = sorted(paths.retrained.glob("*/model.json"), key=lambda file: file.stat().st_mtime)
    return [TrialPaths(file.parent) for file in files]


def find_run(paths: StudyPaths | None, name: str | None) -> TrialPaths:
    """The named run, a run's folder, or the latest run; also by what was trained, `best`, a trial's number or `preset:NAME`: the
    latest of those.

    Raises StudyError with the runs there are.
    """
    if name is not None and is_folder(name):
        return _run_in(name)
    assert paths is not None, "only a folder is in no study"
    runs = finished_runs(paths)
    if not runs:
        raise StudyError(
            f"study {paths.name!r} has no retrained network yet",
            hint=f"nas retrain best --study {paths.name}   makes one",
        )
    if name is None:
        return runs[-1]
    by_name = {run.folder.name: run for run in runs}
    if name in by_name:
        return by_name[name]
    if name == "best" or name.isdecimal() or name.startswith(PREFIX):
        title = find_subject(paths, name).title
        if found := [run for run in runs if read_card(run).subject == title]:
            return found[-1]
        raise StudyError(
            f"{title} of study {paths.name!r} has not been retrained.{choices_sentence(name, by_name)}",
            hint=f"nas retrain {name} --study {paths.name}",
        )
    here = card_file(TrialPaths(Path(name))).is_file()
    raise StudyError(
        f"{name!r} is no retrained network of study {paths.name!r}.{choices_sentence(name, by_name)}",
        hint=f"the folder that is here is named as .{os.sep}{name}" if here else f"nas runs --study {paths.name}   lists them",
    )


def _run_in(name: str) -> TrialPaths:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        what = "is a file, and a run is a folder" if folder.exists() else "is not there"
        raise StudyError(f"{folder} {what}", hint="name the folder that holds the run's model.json and model.safetensors")
    return TrialPaths(folder.resolve())  # of `.` the name is wanted


def load_network(run: TrialPaths) -> tuple[ResNet, ModelCard]:
    """The network with its weights, on the CPU, in evaluation mode. A block of a user's own file is code, which this runs.

    Raises NasError where a file is missing, was changed, or belongs to another network, and for code from outside any study.
    """
    card, _ = read_sealed_card(run)
    _require_trust(run, card)
    model = build_model(card.candidate.arch, card.shape)
    model.load_state_dict(_read_weights(run, card, model))
    return model.eval(), card


TRUST = "NAS_TRUST_BLOCKS"


def _require_trust(run: TrialPaths, card: ModelCard) -> None:
    """Of a study's own runs the code is what the study was searched with; a folder may come from anybody."""
    source = card.candidate.arch.block_source
    if source is None or _is_in_study(run) or os.environ.get(TRUST) == "1":
        return
    raise StudyError(
        f"{card_file(run)} brings code of its own, the block {card.candidate.arch.block} of {source.file}, and lies in no study: "
        "code is run only if you trust where it comes from",
        hint=f"read it, in candidate.arch.block_source.text of that file; then {TRUST}=1 nas …",
    )


def _is_in_study(run: TrialPaths) -> bool:
    """Among the retrained networks of one, or in one of its ablations."""
    home = run.folder.parent
    places = ((StudyPaths(home.parent).retrained, home), (StudyPaths(home.parent.parent.parent).ablations, home.parent.parent))
    return any(place == here and StudyPaths(place.parent).settings.is_file() for place, here in places)


def _read_weights(run: TrialPaths, card: ModelCard, model: ResNet) -> dict[str, Tensor]:
    file = weights_file(run)
    if not file.is_file():
        raise StudyError(f"{run.folder} has no {file.name}, which holds the network's weights", hint=_restored(run))
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise StudyError(f"{file} cannot be read as weights: {error}", hint=_restored(run)) from None
    found = sha256_of(file)
    if difference := _difference(model, tensors):
        raise StudyError(
            f"{file} holds the weights of another network than {card_file(run).name} beside it describes: "
            f"{difference}{_whose(run, found)}",
            hint=_restored(run),
        )
    if card.hashes is not None and found != card.hashes.weights:
        raise StudyError(
            f"{file} is not the file that this training wrote: its hash begins with {found[:12]}, "
            f"and {card_file(run).name} states {card.hashes.weights[:12]}{_whose(run, found)}",
            hint=_restored(run),
        )
    return tensors


def _difference(model: ResNet, tensors: dict[str, Tensor]) -> str | None:
    """The first of what a network and weights do not agree on."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, shape in wanted.items():
        if name not in tensors:
            return f"{name} is missing"
        if tuple(tensors[name].shape) != shape:
            return f"{name} is {'×'.join(map(str, tensors[name].shape))} instead of {'×'.join(map(str, shape))}"
    return next((f"{name} belongs to no layer" for name in tensors if name not in wanted), None)


def _whose(run: TrialPaths, weights: str) -> str:
    """The run beside it that wrote these weights, as the end of a sentence."""
    for file in sorted(run.folder.parent.glob("*/model.json")):
        try:
            hashes = json.loads(file.read_text())["hashes"]
            if file.parent != run.folder and hashes["weights"] == weights:
                return f"; the run {file.parent.name} wrote it"
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ""


def _restored(run: TrialPaths) -> str:
    return f"restore the whole folder {run.folder.name} from a copy, or remove it and train it again with nas retrain"

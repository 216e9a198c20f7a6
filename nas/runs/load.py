"""Loads a retrained network from its run's folder, and checks that its files are those that were written."""

import json
import os

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nas.errors import StudyError
from nas.files import sha256_of
from nas.models import ResNet, build_model
from nas.paths import StudyPaths, TrialPaths
from nas.runs.card import IF_INTENDED, ModelCard, read_sealed_card


def load_network(run: TrialPaths) -> tuple[ResNet, ModelCard]:
    """The network with its weights, on the CPU, in evaluation mode. Runs the code of a user's own block.

    Raises NasError if a file is missing, was changed or belongs to another network, and for code from outside any study.
    """
    card, _ = read_sealed_card(run)
    _require_trust(run, card)
    model = build_model(card.candidate.arch, card.shape)
    model.load_state_dict(_read_weights(run, card, model))
    return model.eval(), card


TRUST = "NAS_TRUST_BLOCKS"


def _require_trust(run: TrialPaths, card: ModelCard) -> None:
    """A study's own runs have the code of its search; another folder may come from anybody."""
    source = card.candidate.arch.block_source
    if source is None or _is_in_study(run) or os.environ.get(TRUST) == "1":
        return
    raise StudyError(
        f"{run.card} contains code, the block {card.candidate.arch.block} of {source.file}, and is in no study: "
        "its code is only run if you trust its source",
        hint=f"read it in candidate.arch.block_source.text of that file; then run {TRUST}=1 nas …",
    )


def _is_in_study(run: TrialPaths) -> bool:
    """Whether the run is one of a study's retrained networks or ablations."""
    home = run.folder.parent
    places = ((StudyPaths(home.parent).retrained, home), (StudyPaths(home.parent.parent.parent).ablations, home.parent.parent))
    return any(place == here and StudyPaths(place.parent).settings.is_file() for place, here in places)


def _read_weights(run: TrialPaths, card: ModelCard, model: ResNet) -> dict[str, Tensor]:
    file = run.weights
    if not file.is_file():
        raise StudyError(f"{run.folder} has no {file.name}, which holds the network's weights", hint=_restored(run))
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise StudyError(f"{file} cannot be read as weights: {error}", hint=_restored(run)) from None
    found = sha256_of(file)
    if difference := _difference(model, tensors):
        raise StudyError(
            f"{file} has the weights of another network than {run.card.name} describes: {difference}{_whose(run, found)}",
            hint=_restored(run),
        )
    if card.hashes is not None and found != card.hashes.weights:
        raise StudyError(
            f"{file} is not the file that this training wrote: its hash begins with {found[:12]}, "
            f"and {run.card.name} states {card.hashes.weights[:12]}{_whose(run, found)}",
            hint=f"{_restored(run)}; {IF_INTENDED}",
        )
    return tensors


def _difference(model: ResNet, tensors: dict[str, Tensor]) -> str | None:
    """The first difference between a network and weights; None if they fit."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, shape in wanted.items():
        if name not in tensors:
            return f"{name} is missing"
        if tuple(tensors[name].shape) != shape:
            return f"{name} is {'×'.join(map(str, tensors[name].shape))} instead of {'×'.join(map(str, shape))}"
    return next((f"{name} does not belong to any layer" for name in tensors if name not in wanted), None)


def _whose(run: TrialPaths, weights: str) -> str:
    """The other run that wrote these weights, as the end of a sentence."""
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

"""What runs in the foreign network's own process: the user's file is imported here, and nowhere else.

It is given its request as a dict, says by a file how far it has come, and leaves its answer in another: standard output is for
the user's code.
"""

import faulthandler
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.budget import calls_of
from nas.config import ImageShape
from nas.errors import ConfigError, NasError
from nas.files import sha256_of, write_whole
from nas.foreign.build import blamed, build_network, is_the_users
from nas.foreign.learns import try_step
from nas.foreign.measure import measure
from nas.foreign.name import ForeignName, foreign_name
from nas.foreign.process import ANSWER, STACK, STAGE
from nas.interrupts import die_with

WHICH_IMAGES = "--size, --channels and --classes say for which images it is"


def main(request: dict[str, Any]) -> None:
    """Ends the process: nothing that the user's code left running keeps it, and it is not left behind itself."""
    die_with(request["parent"])
    folder = Path(request["folder"])
    answer: dict[str, Any]
    try:
        answer = {"facts": _inspected(request, folder)}
    except NasError as error:
        answer = {"message": error.message, "hint": error.hint}
    write_whole(folder / ANSWER, json.dumps(answer).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _inspected(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    name = foreign_name(request["network"])
    assert name is not None
    shape = ImageShape.model_validate(request["shape"])
    sys.dont_write_bytecode = True
    sys.argv = [str(name.file or name.text)]
    # Several layers of attention would otherwise run as one operation, of which nothing is counted.
    torch.backends.mha.set_fastpath_enabled(False)
    torch.set_num_threads(1)  # beside a search, threads that wait for each other take ten times as long

    def stage(word: str) -> None:
        write_whole(folder / STAGE, word.encode())

    with open(folder / STACK, "w") as stack:
        faulthandler.dump_traceback_later(request["timeout"], file=stack)
        model, built = build_network(name, shape, stage)
        hint = _hint_to_train(name, shape) if request["training"] else WHICH_IMAGES
        facts = measure(model, built, shape, lambda model, image: _first_pass(model, image, name, built, stage, hint))
        if request["training"]:
            stage("learn")
            facts = facts.model_copy(update=_learning(model, built, shape, name))
        faulthandler.cancel_dump_traceback_later()
    return facts.model_dump(mode="json")


def _learning(model: nn.Module, built: str, shape: ImageShape, name: ForeignName) -> dict[str, Any]:
    """Raises ConfigError where it cannot be trained."""
    channels_last = try_step(model, built, shape, name)
    if name.file is None:
        return {"channels_last": channels_last}
    text = name.file.read_bytes().decode("utf-8", "replace")
    return {"channels_last": channels_last, "files": _files_of(name.file), "text": text}


def _files_of(file: Path) -> dict[str, str]:
    """Hashes of the user's file and of all that it has imported of its folder, by their paths within that."""
    folder = file.absolute().parent
    found = {file.absolute()}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and is_the_users(Path(path), folder) and Path(path).is_file():
            found.add(Path(path))
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(found)}


def _hint_to_train(name: ForeignName, shape: ImageShape) -> str:
    if name.file is None and shape.channels != 3:
        return (
            f"torchvision's networks take 3 channels, these images have {shape.channels}: a class in a file of yours that holds "
            "one may repeat them, self.net(images.repeat(1, 3, 1, 1))"
        )
    return "a network takes the study's images as they are; a class in a file of yours that holds one may change them first"


def _first_pass(model: nn.Module, image: Tensor, name: ForeignName, built: str, stage: Callable[[str], None], hint: str) -> Any:
    stage("forward")
    size = "×".join(str(n) for n in image.shape[1:])
    with blamed(f"{built} takes no images of {size}", name, hint):
        calls, result = calls_of(model, image)
    if any(torch.nn.parameter.is_lazy(weight) for weight in model.parameters()):
        raise ConfigError(f"{built} has lazy parameters that no image reaches, so that they have no shape and no count")
    stage("count")
    _silence()
    return calls, result


def _silence() -> None:
    """What the user's code prints when it runs again it has printed before."""
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)

"""The process in which a network that is not ours is built and measured: what starts and ends it, and below what runs in it.

The user's file is imported in there alone. That protects this process from a file that hangs, prints, exits or crashes; it is no
sandbox, the file has its user's rights.
"""

import copy
import faulthandler
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from nas.budget import calls_of
from nas.config import ImageShape
from nas.errors import ConfigError, NasError, one_line
from nas.files import sha256_of, write_whole
from nas.foreign import ForeignName, build_network, foreign_name
from nas.foreign.measure import ForeignFacts, measure
from nas.interrupts import die_with
from nas.models.user_code import blaming, is_users, users_line

# Files in the request's folder: what it found, how far it has come, where it stood when its time was up.
ANSWER, STAGE, STACK = "answer.json", "stage", "stack"
KEPT_OUTPUT = 20_000  # bytes of what the user's file prints; the rest is counted
START_UP = 300.0  # seconds until torch must be imported, before the user's time begins
GRACE = 1.0  # seconds after its time is up in which the process says where it stands
IMAGES = 2  # of a step of training: the least of which BatchNorm has a variance where a map is one pixel

# With -P and the path of this process, whatever lies in the working folder cannot stand in for a module that is needed here.
_START = (
    "import json, sys; request = json.load(sys.stdin); sys.path[:] = request['path']; "
    "from nas.foreign.inspection import main; main(request)"
)


def inspect_network(
    name: ForeignName,
    shape: ImageShape,
    timeout: float,
    printed: Callable[[str], None] = lambda text: None,
    training: bool = False,
) -> ForeignFacts:
    """Builds and measures the network for images of `shape`, `timeout` in seconds without the start of the process; `training`
    also tries a step of training.

    `printed` hears what its code printed, if it did, before this returns or raises. Raises ConfigError with what is wrong with
    it, or with how it ended its process.
    """
    with tempfile.TemporaryDirectory(prefix="nas-foreign-") as folder:
        request = {
            "path": sys.path,
            "parent": os.getpid(),
            "folder": folder,
            "network": name.text,
            "shape": shape.model_dump(),
            "timeout": timeout,
            "training": training,
        }
        process = subprocess.Popen(
            [sys.executable, "-u", "-P", "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        output = _Output(process.stdout)
        try:
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(json.dumps(request).encode())
            in_time = _wait(process, Path(folder), timeout)
        finally:  # with all that it started and that has not left its session
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if text := output.text():
            printed(text)
        return _answer(Path(folder), name, process.returncode, None if in_time else timeout)


def _wait(process: subprocess.Popen[bytes], folder: Path, timeout: float) -> bool:
    """Whether it ended by itself."""
    deadline = time.monotonic() + START_UP
    began = False
    while process.poll() is None:
        if not began and (folder / STAGE).exists():
            began, deadline = True, time.monotonic() + timeout + GRACE
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class _Output:
    """Reads a pipe to its end, so that its writer never waits, and keeps the beginning."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._kept = b""
        self._dropped = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while chunk := os.read(self._pipe.fileno(), 65536):
            room = KEPT_OUTPUT - len(self._kept)
            self._kept += chunk[:room]
            self._dropped += max(0, len(chunk) - room)

    def text(self) -> str:
        """Printable, without colours; after the process has ended."""
        self._thread.join(timeout=2)  # who left the session may hold the pipe open
        if not self._thread.is_alive():
            self._pipe.close()
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._kept.decode(errors="replace"))
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        text = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text).strip("\n")
        return text + (f"\n… and {self._dropped:,} bytes more" if self._dropped else "")


# ------------------------------------------------------------------------------------------------------ what it answered


_DOING = {
    "import": "while it was imported",
    "build": "while it was built",
    "forward": "in its forward pass",
    "count": "while its MACs were counted",
    "learn": "in a step of training",
}


def _answer(folder: Path, name: ForeignName, status: int, timeout: float | None) -> ForeignFacts:
    """`timeout`: seconds after which it was ended, None where it ended itself."""
    with suppress(FileNotFoundError):
        answer = json.loads((folder / ANSWER).read_bytes())
        if "facts" in answer:
            return ForeignFacts.model_validate(answer["facts"])
        raise ConfigError(answer["message"], hint=answer["hint"])
    try:
        stage = (folder / STAGE).read_text()
    except FileNotFoundError:
        raise NasError(
            f"the process that builds {name.text} ended before it started, with status {status}",
            hint="nas doctor shows whether torch can be imported",
        ) from None
    doing = _DOING[stage]
    if timeout is not None:
        place = _place(folder / STACK, name)
        raise ConfigError(
            f"{name.text} was stopped after {timeout:g} s {doing}{place}", hint="if it is only slow, use --timeout 5m"
        )
    if status < 0:
        ending = signal.Signals(-status).name
        cause = ", which the system does when memory runs out" if ending == "SIGKILL" else ""
        raise ConfigError(f"the process of {name.text} was ended by {ending} {doing}{cause}")
    raise ConfigError(
        f"{name.text} ended its process with status {status} {doing}",
        hint='put code that should only run as a program under if __name__ == "__main__":',
    )


def _place(stack: Path, name: ForeignName) -> str:
    """`, at net.py, line 7, in forward`: the innermost line of the user's, of any thread."""
    for frame in re.findall(r'File "(.+)", line (\d+) in (.+)', stack.read_text(errors="replace")):
        if found := users_line(name.file, *frame):
            return f", at {found}"
    return ""


# -------------------------------------------------------------------------------------------- what runs in that process


def main(request: dict[str, Any]) -> None:
    """Ends the process: nothing that the user's code left running keeps it, and it is not left behind itself."""
    die_with(request["parent"])
    folder = Path(request["folder"])
    answer: dict[str, Any]
    try:
        answer = {"facts": _inspected(request, folder)}
    except NasError as error:
        answer = {"message": error.message, "hint": error.hint}
    except (KeyboardInterrupt, MemoryError) as error:
        answer = {"message": f"{request['network']} cannot be built and run: {one_line(error)}", "hint": None}
    write_whole(folder / ANSWER, json.dumps(answer).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _inspected(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    name, shape, training = foreign_name(request["network"]), ImageShape.model_validate(request["shape"]), request["training"]
    assert name is not None
    sys.argv = [str(name.file or name.text)]
    sys.dont_write_bytecode = True
    # Several layers of attention would otherwise run as one operation, of which nothing is counted.
    torch.backends.mha.set_fastpath_enabled(False)
    torch.set_num_threads(1)  # beside a search, threads that wait for each other take ten times as long

    def stage(word: str) -> None:
        write_whole(folder / STAGE, word.encode())

    def first_pass(model: nn.Module, image: Tensor) -> Any:
        stage("forward")
        hint = _hint_to_train(name, shape) if training else "set the images with --size, --channels and --classes"
        with blaming(name.file, f"{built} takes no images of {'×'.join(str(n) for n in image.shape[1:])}", hint):
            calls, result = calls_of(model, image)
        if any(is_lazy(weight) for weight in model.parameters()):
            raise ConfigError(
                f"{built} has lazy parameters that the forward pass does not use, so they have no shape and cannot be counted"
            )
        stage("count")
        _silence()
        return calls, result

    with open(folder / STACK, "w") as stack:
        faulthandler.dump_traceback_later(request["timeout"], file=stack)
        model, built = build_network(name, shape, stage)
        facts = measure(model, built, shape, first_pass)
        if training:
            stage("learn")
            facts = facts.model_copy(update=try_training(model, built, shape, name))
        faulthandler.cancel_dump_traceback_later()
    return facts.model_dump(mode="json")


def _hint_to_train(name: ForeignName, shape: ImageShape) -> str:
    if name.library == "torchvision" and shape.channels != 3:
        return (
            f"torchvision's networks take 3 channels, these images have {shape.channels}: wrap it in your own class "
            "that repeats them, self.net(images.repeat(1, 3, 1, 1))"
        )
    return "a network gets the study's images as they are; wrap it in your own class that changes them first"


def _silence() -> None:
    """What the user's code prints when it runs again it has printed before."""
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


# ------------------------------------------------------------------------------- whether it can be trained as ours are


def try_training(model: nn.Module, built: str, shape: ImageShape, name: ForeignName) -> dict[str, Any]:
    """What a step of training adds to its facts. Raises ConfigError where it cannot be trained."""
    facts: dict[str, Any] = {"channels_last": try_step(model, built, shape, name)}
    if name.file is not None:
        facts |= {"files": _files_of(name.file), "text": name.file.read_bytes().decode("utf-8", "replace")}
    return facts


def _files_of(file: Path) -> dict[str, str]:
    """Hashes of the user's file and of all that it has imported of its folder, by their paths within that."""
    folder = file.absolute().parent
    paths = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    found = {file.absolute(), *(Path(path) for path in paths if isinstance(path, str) and is_users(path, folder))}
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(found) if path.is_file()}


def try_step(model: nn.Module, built: str, shape: ImageShape, name: ForeignName) -> bool:
    """Whether the network computes in channels-last memory, as ours do. It has seen an image before, as in `known.build`.

    Raises ConfigError where it cannot be copied or kept, has nothing to learn, fails in training, or returns anything but logits
    (N, classes), in training or in evaluation.
    """
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ConfigError(
                f"{built} keeps {key!r} in its state_dict, a {type(value).__name__}, but a checkpoint can contain only tensors",
                hint="use register_buffer for a tensor; keep everything else out of the extra state",
            )
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ConfigError(f"{built} has no trainable parameter: none has requires_grad")

    def step(model: nn.Module, images: Tensor) -> None:
        model.train()
        logits = _required_logits(model(images), built, "in training", shape.classes, name)
        F.cross_entropy(logits.float(), torch.arange(IMAGES) % shape.classes).backward()
        if all(weight.grad is None for weight in model.parameters()):
            raise ConfigError(f"{built} cannot be trained: no gradient reaches any of its parameters")
        model.eval()
        with torch.no_grad():
            _required_logits(model(images), built, "in evaluation", shape.classes, name)

    images = torch.rand(IMAGES, shape.channels, shape.size, shape.size) * 2 - 1
    with blaming(name.file, f"{built} cannot be copied with copy.deepcopy, which EMA weights need"):
        twin = copy.deepcopy(model)
    try:
        step(twin.to(memory_format=torch.channels_last), images.clone(memory_format=torch.channels_last))
    except NasError:
        raise
    except Exception:  # of the memory's order perhaps; if not, it fails again
        with blaming(name.file, f"{built} fails in a step of training"):
            step(model, images)
        return False
    return True


def _required_logits(output: Any, built: str, when: str, classes: int, name: ForeignName) -> Tensor:
    wanted = f"{when}{{}}, but must return one tensor ({IMAGES}, {classes}) for {IMAGES} images and {classes} classes"
    if not isinstance(output, Tensor):
        tensors = sum(isinstance(leaf, Tensor) for leaf in tree_leaves(output))
        kind = f"a {type(output).__name__}" + (f" of {tensors} tensors" if tensors > 1 else "")
        hint = "wrap it in your own class that returns only the logits"
        if name.file is None:
            without = name.called({**name.keywords, "aux_logits": False})
            hint = f"leave out its auxiliary classifiers: {name.example(without)}"
        raise ConfigError(f"{built} returns {kind} {wanted.format(' (perhaps auxiliary outputs)')}", hint=hint)
    if tuple(output.shape) != (IMAGES, classes) or not output.is_floating_point():
        kind = f"{tuple(output.shape)}" + ("" if output.is_floating_point() else f" of {output.dtype}")
        raise ConfigError(
            f"{built} returns {kind} {wanted.format('')}",
            hint="num_classes is set to the number of classes unless you give it; the last layer needs one output for each class",
        )
    return output

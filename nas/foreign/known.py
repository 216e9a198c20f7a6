"""A network that is not ours, as it was measured in a process of its own, and built again from its name in this one."""

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from nas.budget import params_of
from nas.config import BudgetConfig, Frozen, ImageShape, amount
from nas.errors import ConfigError, choices_sentence
from nas.files import sha256_of
from nas.foreign import ForeignName, build_network, foreign_name
from nas.foreign.inspection import inspect_network
from nas.models.user_code import blaming
from nas.paths import PRESET, shipped_names

LONGEST_SLUG = 60


class KnownNetwork(Frozen):
    name: str  # as it was typed
    built: str  # `resnet18(num_classes=10)`
    files: dict[str, str]
    """SHA-256 of the user's file, and of those that it imports of its folder, by their paths within that; none of a library."""
    text: str | None  # of the user's file, which is code
    params: int  # by fvcore: what is shared counts once, what is frozen or never used counts too
    macs: int | None  # by fvcore, of one image; None where they cannot be counted
    over: dict[str, int]  # by how much it is over the study's budget, for each limit that it breaks
    unknown: tuple[str, ...]  # limits of the budget that could not be held against it
    uncounted: tuple[str, ...] = ()  # operations that multiply but are not in `macs`
    channels_last: bool
    digest: str  # 16 hexadecimal digits, equal for the same call of the same code, wherever that lies

    @property
    def over_text(self) -> str | None:
        """`6,181,642 parameters`; None where it fits, as far as that is known."""
        return over_text(self.over)

    @property
    def slug(self) -> str:
        """Part of a folder's name: with some digits of the digest, unless the name alone says which network it is."""
        found = named(self.name)
        text = self.name if found.file is None else f"{found.file.stem}-{self.name.partition('.py')[2]}"
        plain = "-".join("".join(c if c.isalnum() or c == "_" else " " for c in text).split())[:LONGEST_SLUG]
        return plain if found.file is None and not (found.positional or found.keywords) else f"{plain}-{self.digest[:8]}"

    @property
    def is_unchanged(self) -> bool:
        """Whether its files are those that were measured."""
        file = named(self.name).file
        if file is None:
            return True
        folder = file.absolute().parent
        return all((folder / path).is_file() and sha256_of(folder / path) == known for path, known in self.files.items())


def over_text(over: Mapping[str, int]) -> str | None:
    return " and ".join(amount(limit, excess) for limit, excess in over.items()) or None


def over_budget(limits: BudgetConfig, values: Mapping[str, int | None]) -> dict[str, int]:
    """By how much `values` are over those limits that can be counted, for each that is broken."""
    held = {name: (values.get(name), int(limit)) for name, limit in limits.counted().limited().items()}
    return {name: value - limit for name, (value, limit) in held.items() if value is not None and value > limit}


# ------------------------------------------------------------------------------------------------------------- its name


def named(text: str) -> ForeignName:
    """Raises ConfigError for what is no known network, with where it belongs if it is one of ours."""
    found = foreign_name(text)
    if found is not None:
        return found
    if text == "best" or text.isdecimal() or text.startswith((PRESET, "top:")):
        raise ConfigError(
            f"{text} is a network of nas itself, and nas baseline trains other networks for comparison",
            hint=f"nas retrain {text}",
        )
    preset = text in shipped_names("preset")
    hint = f"nas retrain {PRESET}{text}" if preset else f"nas baseline torchvision:{text if text.isidentifier() else 'resnet18'}"
    choices = choices_sentence(text, ["torchvision:NAME", "timm:NAME", "FILE.py:CLASS"])
    raise ConfigError(f"{text!r} is not a network that nas baseline can train.{choices}", hint=hint)


def measure(
    text: str, shape: ImageShape, limits: BudgetConfig, timeout: float, printed: Callable[[str, str], None]
) -> KnownNetwork:
    """In a process of its own, with a step of training. Raises ConfigError where it cannot be built, ended or trained.

    `printed` hears the name, and what its code printed.
    """
    facts = inspect_network(named(text), shape, timeout, lambda output: printed(text, output), training=True)
    if facts.unregistered:
        raise ConfigError(
            f"{facts.built} uses {facts.unregistered:,} parameters that are not registered, perhaps of layers in a plain list: "
            "no optimiser would train them",
            hint="use nn.ModuleList, which registers them",
        )
    values = {name: getattr(facts, name) for name in limits.counted().limited()}
    return KnownNetwork(
        **facts.model_dump(include={"built", "files", "text", "params", "macs", "channels_last"}),
        name=text,
        over=over_budget(limits, values),
        unknown=tuple(
            name
            for name in limits.limited()
            if values.get(name) is None or (name == "macs" and facts.macs_uncounted and limits.uncounted == "refuse")
        ),
        uncounted=tuple(facts.macs_uncounted),
        digest=_digest(named(text), facts.files),
    )


def _digest(name: ForeignName, files: Mapping[str, str]) -> str:
    call = name.called(name.keywords) if name.positional or name.keywords else name.attribute
    # Torchvision was the only library once, so that digests have true for it.
    library = True if name.library == "torchvision" else name.library or False
    content = json.dumps([library, call, sorted(files.items())])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------------ building it again


def build(network: KnownNetwork, shape: ImageShape) -> nn.Module:
    """A new one, on the CPU, its weights drawn from torch's generator: images (N, C, H, W), normalised, to logits (N, classes).

    Runs the user's code in this process. Raises ConfigError where its files, or what they build, are not what was measured.
    """
    name = named(network.name)
    if not network.is_unchanged:
        raise ConfigError(
            f"the code of {network.name} was changed after it was measured", hint="run the same command again to measure it"
        )
    with quiet():
        built, _ = build_network(name, shape)
        with blaming(name.file, f"{network.built} takes no images"), torch.no_grad():
            # It was tried after a first image, which gives lazy parameters their shapes, and by which weight_norm can be copied.
            built.eval()(torch.zeros(1, shape.channels, shape.size, shape.size))
            model = copy.deepcopy(built)  # what the file keeps as a whole stays as it is for the next seed
    found = params_of(model)
    if found != network.params:
        raise ConfigError(
            f"{network.name} has {found:,} parameters here, and had {network.params:,} when it was measured: its structure is "
            "different each time",
            hint="make its structure depend only on its arguments",
        )
    if not network.channels_last:
        model.register_forward_pre_hook(_as_rows)
    return model.train()


def _as_rows(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    # Not contiguous(): images of one channel are so in either order, and convolutions go by the strides.
    return tuple(one.clone(memory_format=torch.contiguous_format) if isinstance(one, Tensor) else one for one in args)


@contextmanager
def quiet() -> Iterator[None]:
    """What the user's code prints was heard when it was measured; standard output is for data."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield

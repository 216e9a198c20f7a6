"""Whether a network that is not ours can be trained as ours are: one step of training, tried before any that counts."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from nas.config import ImageShape
from nas.errors import ConfigError, NasError
from nas.foreign.build import blamed
from nas.foreign.name import ForeignName

IMAGES = 2
"""The least of which BatchNorm has a variance where a map is one pixel."""


def try_step(model: nn.Module, built: str, shape: ImageShape, name: ForeignName) -> bool:
    """Whether the network computes in channels-last memory, as ours do. It has seen an image before.

    Raises ConfigError where it cannot be copied or kept, has nothing to learn, fails in training, or returns anything but logits
    (N, classes), in training or in evaluation.
    """
    _require_kept(model, built)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ConfigError(f"{built} has no parameter that could be trained: none has requires_grad")
    images = torch.rand(IMAGES, shape.channels, shape.size, shape.size) * 2 - 1
    with blamed(f"{built} cannot be copied, which the average of its weights needs", name):
        twin = copy.deepcopy(model)
    try:
        _step(
            twin.to(memory_format=torch.channels_last),
            images.clone(memory_format=torch.channels_last),
            built,
            shape.classes,
            name,
        )
    except NasError:
        raise
    except Exception:  # of the memory's order perhaps; if not, it fails again
        with blamed(f"{built} fails in a step of training", name):
            _step(model, images, built, shape.classes, name)
        return False
    return True


def _step(model: nn.Module, images: Tensor, built: str, classes: int, name: ForeignName) -> None:
    model.train()
    logits = _required_logits(model(images), "in training", built, classes, name)
    F.cross_entropy(logits.float(), torch.arange(IMAGES) % classes).backward()
    if all(weight.grad is None for weight in model.parameters()):
        raise ConfigError(f"{built} cannot be trained: no gradient reaches any of its parameters")
    model.eval()
    with torch.no_grad():
        _required_logits(model(images), "in evaluation", built, classes, name)


def _required_logits(output: Any, when: str, built: str, classes: int, name: ForeignName) -> Tensor:
    wanted = f"{classes} classes need one tensor ({IMAGES}, {classes})"
    if not isinstance(output, Tensor):
        tensors = [tuple(leaf.shape) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        of = f" of {len(tensors)} tensors" if len(tensors) > 1 else ""
        hint = "a class in a file of yours that holds it may return the logits alone"
        if name.file is None:
            without = name.called({**name.keywords, "aux_logits": False})
            hint = f"its auxiliary classifiers can be left out: {name.example(without)}"
        raise ConfigError(
            f"{built} returns a {type(output).__name__}{of} {when} for {IMAGES} images, auxiliary outputs perhaps, and {wanted}",
            hint=hint,
        )
    if tuple(output.shape) != (IMAGES, classes) or not output.is_floating_point():
        kind = "" if output.is_floating_point() else f" of {output.dtype}"
        raise ConfigError(
            f"{built} returns {tuple(output.shape)}{kind} {when} for {IMAGES} images, and {wanted}",
            hint="an argument num_classes is the images' unless the name gives it; the last layer has an output for each class",
        )
    return output


def _require_kept(model: nn.Module, built: str) -> None:
    """A checkpoint holds tensors alone."""
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ConfigError(
                f"{built} keeps {key!r} in its state_dict, a {type(value).__name__}, and a checkpoint holds tensors alone",
                hint="register_buffer keeps a tensor; what is no tensor belongs in no extra state",
            )

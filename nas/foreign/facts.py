"""What is known of a network that is not ours, as data: JSON both ways, from the process that measured it."""

from pydantic import Field

from nas.budget.layers import Layer, Part
from nas.config import Frozen


class Repeat(Frozen):
    """A block that keeps the shape of what passes it, so that a copy could follow it, or it could be left out."""

    name: str
    """Of the last of its kind there: `layer3.1`."""
    kind: str
    shape: tuple[int, ...]
    """Of what enters and leaves it, for one image."""
    params: int
    macs: int | None
    count: int
    """How many of its kind there are in that place."""


class ForeignFacts(Frozen):
    built: str
    """`resnet18(num_classes=10)`"""
    params: int
    """By fvcore: what is shared counts once, what is frozen or never used counts too."""
    macs: int | None
    """By fvcore, of one image; None where torch.jit cannot trace the network, and …"""
    macs_unknown: str | None
    """… why."""
    macs_uncounted: dict[str, int]
    """Operations that multiply but that fvcore has no rule for, and how often they run."""
    memory: int | None
    """Bytes of activations at once, of one image; None where the network cannot be followed."""
    bytes: int
    """Of its parameters, as they are stored."""
    frozen: int
    """Parameters that no gradient reaches: requires_grad is False."""
    shared: tuple[tuple[str, ...], ...]
    """Names of one and the same parameter, for each that has several."""
    buffers: int
    """Values that it keeps but does not learn, such as BatchNorm's statistics."""
    lazy: tuple[str, ...]
    """Parameters whose shape followed from the image."""
    unused: dict[str, int] | None
    """Parameters that no operation of the forward pass reads at prediction, by the module that holds them; None where it cannot
    be followed."""
    unregistered: int | None
    """Values of parameters that it uses but does not know, and that are in no count."""
    output: tuple[int, ...] | None
    """Shape for one image; None where it returns no tensor."""
    parts: tuple[Part, ...]
    layers: tuple[Layer, ...]
    repeats: tuple[Repeat, ...]
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the Python files of its folder that it was made of, by their paths within it; …"""
    text: str | None = None
    """… and of the one that was named, the text. None of a model of torchvision."""
    channels_last: bool | None = None
    """Whether it computes in channels-last memory; False of one that views its maps as rows. None where no step of training was
    tried."""

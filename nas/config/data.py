"""Which images, described."""

from typing import Annotated

from pydantic import Field

from nas.config.frozen import Frozen


class ImageShape(Frozen):
    """What a network must know of a data set."""

    channels: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=8)]
    """Height and width, in pixels."""
    classes: Annotated[int, Field(ge=2)]


class DataConfig(Frozen):
    """Which images, and which of them train."""

    dataset: str
    folder: str | None = None
    """Where the data lies or is downloaded to; `digits` needs none."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    skip_bad_images: bool = False
    validation: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of each class of the training set that selects candidates and never trains them during a search."""
    subset: Annotated[int, Field(ge=1)] | None = None
    """Train candidates on this many images, stratified; the validation images stay the same."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes the split and the subset."""

"""Which images, described."""

from typing import Annotated, Literal

from pydantic import Field

from nas.config.frozen import Frozen

ResizeName = Literal["squash", "crop", "pad"]
ChannelsName = Literal["grey", "rgb"]


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
    labels: str | None = None
    """`folder`: a CSV or Parquet file that says each image's label, instead of the folder that the image is in."""
    image_column: str = "image"
    """Of that file: paths within `folder`, with or without the ending."""
    label_column: str = "label"
    group_column: str | None = None
    """Of that file: what images have in common that must not be on both sides of the split, such as their patient."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    resize: ResizeName = "squash"
    """`folder`: how an image becomes a square. squash: each side on its own. crop: the square in its middle. pad: whole, on
    black."""
    channels: ChannelsName | None = None
    """`folder`: None takes the first readable image's."""
    skip_bad_images: bool = False
    """Leave images out that cannot be read or, beside `labels`, have no label or no file."""
    validation: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of each class of the training set that selects candidates and never trains them during a search."""
    subset: Annotated[int, Field(ge=1)] | None = None
    """Train candidates on this many images, stratified; the validation images stay the same."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes the split and the subset."""

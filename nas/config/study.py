"""What a study is about: its images, its metric, its sampler and pruner (the section `study` of a space file)."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nas.config.budget import Flop
from nas.config.frozen import Frozen

MetricName = Literal["accuracy", "balanced_accuracy", "macro_f1"]
METRIC_WORDS: dict[MetricName, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
}
ResizeName = Literal["squash", "crop", "pad"]
ChannelsName = Literal["grey", "rgb"]
ObjectiveName = Literal["accuracy", "front"]


IMAGES_EXPONENT = 0.8  # β of `StudyConfig.compute_of`
SIZE_EXPONENT = 0.6  # δ: a network with twice the MACs learns as much from an image as the other from 2^δ images


class ImageShape(Frozen):
    """Shape of the images and number of classes."""

    channels: Annotated[int, Field(ge=1)]  # 1 for grey, 3 for RGB
    size: Annotated[int, Field(ge=8)]  # height and width, in pixels
    classes: Annotated[int, Field(ge=2)]  # number of classes


class DataConfig(Frozen):
    """Which images are used, and how they are split."""

    dataset: str
    folder: str | None = None  # where the data lies or is downloaded to; `digits` needs none
    labels: str | None = None
    """`folder`: a CSV or Parquet file that says each image's label, instead of the folder that the image is in."""
    image_column: str = "image"  # of that file: paths within `folder`, with or without the ending
    label_column: str = "label"
    label_columns: tuple[str, ...] = ()
    """Columns of one-hot labels: one column for each class, 1 for images of that class and 0 for all others."""
    header: bool = True  # whether a table's first line names its columns; they are called 1, 2, … otherwise
    group_column: str | None = None
    """Of that file: what images have in common that must not be on both sides of the split, such as their patient."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    resize: ResizeName = "squash"
    """`folder`: how an image becomes a square. squash: each side on its own. crop: the square in its middle. pad: whole, on
    black."""
    channels: ChannelsName | None = None  # `folder`: None takes the first readable image's
    skip_bad_images: bool = False  # leave images out that cannot be read or, beside `labels`, have no label or no file
    group_duplicates: bool = False  # images that are alike, also mirrored, are groups beside those of the column
    validation: Annotated[float, Field(gt=0.0, lt=1.0)] | Annotated[int, Field(ge=1)] = 0.1
    """Images of the training set, stratified, that select candidates and never train them during a search: a share of each
    class, or from 1 on how many in all."""
    subset: Annotated[int, Field(ge=1)] | None = None
    """Train candidates on this many of the images that are not for validation, stratified."""
    seed: Annotated[int, Field(ge=0)] = 0  # fixes the split and the subset


class StrategyConfig(Frozen):
    """A sampler or a pruner by name, with the arguments that differ from its defaults."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_word_or_mapping(cls, value: Any) -> Any:
        """`tpe`, or `{name: tpe, startup_trials: 30}`."""
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "arguments" not in value and "name" in value:
            return {"name": value["name"], "arguments": {key: v for key, v in value.items() if key != "name"}}
        return value


class StudyConfig(Frozen):
    sampler: StrategyConfig = StrategyConfig(name="tpe")  # a name, or a mapping with arguments; see below
    pruner: StrategyConfig = StrategyConfig(name="asha")  # a name, or a mapping with arguments; see below
    metric: MetricName = "accuracy"  # validation metric for pruning, ranking and reports
    objective: ObjectiveName = "accuracy"
    """accuracy: the best network under the budget. front: the best network for every number of parameters up to the budget; each
    trial gets its own limit, drawn below the budget."""
    trial_compute: Flop | None = None
    """Training compute of each trial, such as 10TFLOP: small networks see more images in an epoch than large ones, so pruning and
    ranking compare networks at equal compute. null: every trial sees the same images."""
    final_compute: Flop | None = None
    """Compute of the final training that the search is for, such as 0.3PFLOP. At equal compute, trials that are much shorter
    favour networks that are too small for it. With this key the trial of a network at the limit of MACs takes `trial_compute`,
    and smaller networks take so much less that the best size for the final training does best. null: all take `trial_compute`."""

    def compute_of(self, macs: int, most_macs: int | None, times: float = 1.0) -> float | None:
        """Operations of a trial of a network with `macs` MACs, or of a training that is `times` as long. None where every trial
        sees the same images. `most_macs`: the limit; needed with `final_compute`.

        The error of a network is taken to be a + b MACs^-α + c (MACs^δ × images)^-β, so short trials at equal compute overstate
        what a small network gains by its additional images. With `final_compute` the last term of every trial exceeds that of the
        final training by the same amount, so that a trial ranks networks of all sizes as the final training does. β and δ are
        those with which trials of 6 TFLOP chose the best of nine networks for a final training of 0.1065 PFLOP on CIFAR-10
        (studies/reference/README.md, "The size that fits the compute").
        """
        if self.trial_compute is None:
            return None
        flop = times * self.trial_compute
        if self.final_compute is None or not most_macs:
            return flop
        final = self.final_compute**-IMAGES_EXPONENT
        surplus = min(flop, self.final_compute) ** -IMAGES_EXPONENT - final
        return (final + (most_macs / macs) ** (IMAGES_EXPONENT * (1 - SIZE_EXPONENT)) * surplus) ** (-1 / IMAGES_EXPONENT)

"""What a study is about: its images, what networks are judged by, and how it chooses them (a space file's `study` section)."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

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


class ImageShape(Frozen):
    """What a network must know of a data set."""

    channels: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=8)]  # height and width, in pixels
    classes: Annotated[int, Field(ge=2)]


class DataConfig(Frozen):
    """Which images, and which of them train."""

    dataset: str
    folder: str | None = None  # where the data lies or is downloaded to; `digits` needs none
    labels: str | None = None
    """`folder`: a CSV or Parquet file that says each image's label, instead of the folder that the image is in."""
    image_column: str = "image"  # of that file: paths within `folder`, with or without the ending
    label_column: str = "label"
    group_column: str | None = None
    """Of that file: what images have in common that must not be on both sides of the split, such as their patient."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    resize: ResizeName = "squash"
    """`folder`: how an image becomes a square. squash: each side on its own. crop: the square in its middle. pad: whole, on
    black."""
    channels: ChannelsName | None = None  # `folder`: None takes the first readable image's
    skip_bad_images: bool = False  # leave images out that cannot be read or, beside `labels`, have no label or no file
    validation: Annotated[float, Field(gt=0.0, lt=1.0)] | Annotated[int, Field(ge=1)] = 0.1
    """Images of the training set, stratified, that select candidates and never train them during a search: a share of each
    class, or from 1 on how many in all."""
    subset: Annotated[int, Field(ge=1)] | None = None
    """Train candidates on this many images, stratified; the validation images stay the same."""
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
    sampler: StrategyConfig = StrategyConfig(name="tpe")
    pruner: StrategyConfig = StrategyConfig(name="asha")
    metric: MetricName = "accuracy"  # of the validation images: what networks are pruned, ranked and reported by
    objective: ObjectiveName = "accuracy"
    """accuracy: the best network under the budget. front: the best for every number of parameters up to the budget; each
    trial has a budget of its own, drawn below that."""

"""Recipes of the final training: by name, `search_spaces/recipes/<name>.yaml`, or from a file.

A recipe replaces what the search drew, key by key. All other keys stay as searched.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from nas.config import Candidate, Epochs, Frozen, Rate, TrainConfig, first_problem
from nas.errors import ConfigError
from nas.paths import shipped_file, shipped_names
from nas.space.yaml_file import own_file, read_text, read_yaml, require_shipped, with_british_keys

SEARCHED, AUTO = "searched", "auto"
LONG_FROM = 80  # epochs from which `auto` is `long`, not `fast`
OF_THE_DATA = ("crop_padding", "pad_mode", "flip")  # augmentations that stay as searched unless a recipe names them

TtaName = Literal["none", "flip", "flip_shift"]


class DepthRate(Frozen):
    """Stochastic depth that grows with the length of the run."""

    rate: Rate  # drop probability of the last block in a run of `at_epochs` epochs
    at_epochs: Epochs  # shorter runs take a proportional share, longer ones the full rate

    def of(self, epochs: int) -> float:
        return self.rate * min(1.0, epochs / self.at_epochs)


class Recipe(Frozen):
    version: Literal[1] = 1  # version of the format
    about: str = ""  # one line, for lists
    epochs: Epochs | None = None
    """Default for --epochs; null: four times the epochs of the search, in nas ablate as many as in the search"""
    train: dict[str, Any] = Field(default_factory=dict)  # keys of `train` that replace the searched ones
    from_epochs: dict[Epochs, dict[str, Any]] = Field(default_factory=dict)
    """From a number of epochs to keys of `train`, which apply to runs of at least that many epochs."""
    stochastic_depth: DepthRate | None = None  # stochastic depth by the length of the run; see below
    tta: TtaName | None = None  # test-time augmentation of a submission; null: flip if the training used flips

    @field_validator("train")
    @classmethod
    def _means_something(cls, train: dict[str, Any]) -> dict[str, Any]:
        return _checked(train)

    @field_validator("from_epochs")
    @classmethod
    def _each_means_something(cls, parts: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        return {least: _checked(part, f"{least}.") for least, part in parts.items()}

    def fit(self, candidate: Candidate, epochs: int) -> Candidate:
        """`candidate` with this recipe for `epochs` epochs. If the search did not flip images, the recipe does not either.
        Raises ConfigError if keys contradict each other."""
        searched = candidate.train.model_dump()
        train = dict(searched)
        for part in (self.train, *(self.from_epochs[least] for least in sorted(self.from_epochs) if least <= epochs)):
            augment = part.get("augment")
            train |= part
            if "lr" in part:
                train["adam_lr"] = None
            if augment is not None:
                kept = {key: searched["augment"][key] for key in OF_THE_DATA}
                train["augment"] = kept | augment
        if searched["augment"]["flip"] == "none":
            train["augment"] = {**train["augment"], "flip": "none"}
        arch = candidate.arch
        if self.stochastic_depth is not None:
            arch = arch.model_copy(update={"stochastic_depth": round(self.stochastic_depth.of(epochs), 4)})
        try:
            return Candidate(arch=arch, train=TrainConfig.model_validate({**train, "epochs": epochs, "epoch_images": None}))
        except ValidationError as error:
            raise ConfigError(
                f"the recipe and the other training settings of the network contradict each other: {first_problem(error)}",
                hint="change one of the two in a recipe of your own, or use --recipe searched",
            ) from None


def _checked(part: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    try:
        part = with_british_keys(part)
        if "epochs" in part:
            raise ValueError("epochs: set the recipe's own key `epochs` instead")
        if "epoch_images" in part:
            raise ValueError("epoch_images: leave it out; `nas retrain --compute` sets the compute of a training")
        if "lr" in part and "optimiser" not in part:
            raise ValueError(
                f"lr: set {prefix}optimiser, too, because good learning rates differ by orders of magnitude between optimisers"
            )
        TrainConfig.model_validate(part)
    except ValueError as error:  # a ValidationError is one, too
        raise ValueError(f"{prefix}{first_problem(error) if isinstance(error, ValidationError) else error}") from None
    return part


def recipe_names() -> list[str]:
    """All names: the shipped files, `searched` and `auto`."""
    return [SEARCHED, AUTO, *shipped_names("recipe")]


def load_recipe(name_or_path: str, epochs: int) -> tuple[str, Recipe]:
    """A recipe and its name; `auto` becomes the recipe that suits this number of epochs. Raises ConfigError with the known names,
    or with the file and the key."""
    if name_or_path == SEARCHED:
        return SEARCHED, Recipe()
    name = ("long" if epochs >= LONG_FROM else "fast") if name_or_path == AUTO else name_or_path
    file = own_file(name, "recipe") or require_shipped("recipe", name, SEARCHED, AUTO)
    return file.stem, read_recipe(read_text(file), file)


def read_recipe(text: str, source: Path) -> Recipe:
    """Raises ConfigError, naming `source` and the key."""
    tree = read_yaml(text, str(source))
    example = f"compare {shipped_file('recipe', 'long')}"
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: must be a mapping of keys to values, but is {tree!r}", hint=example)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_problem(error)}", hint=example) from None

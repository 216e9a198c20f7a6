"""How a chosen network is trained for the last time: recipes by name, `search_spaces/recipes/<name>.yaml`, or from a file.

A recipe takes the place of what the search drew, key by key; what it leaves open stays as it was searched.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from nas.config import Candidate, Epochs, Frozen, Rate, TrainConfig, first_problem
from nas.errors import ConfigError, choices_sentence
from nas.paths import shipped_folder
from nas.space.space_file import own_file, read_text, read_yaml

SEARCHED, AUTO = "searched", "auto"
LONG_FROM = 80
"""Epochs from which `auto` is `long`, not `fast`."""
OF_THE_DATA = ("crop_padding", "pad_mode", "flip")
"""Augmentations that stay as searched unless a recipe names them."""

TtaName = Literal["none", "flip", "flip_shift"]


class DepthRate(Frozen):
    """Stochastic depth that grows with the run."""

    rate: Rate
    """Of the last block, in a run of …"""
    at_epochs: Epochs
    """… so many epochs; a shorter run takes its share, a longer one no more."""

    def of(self, epochs: int) -> float:
        return self.rate * min(1.0, epochs / self.at_epochs)


class Recipe(Frozen):
    version: Literal[1] = 1
    about: str = ""
    """In one line, for lists."""
    epochs: Epochs | None = None
    """Where none are asked for; None takes what the search's recipe would."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Fields of TrainConfig."""
    from_epochs: dict[Epochs, dict[str, Any]] = Field(default_factory=dict)
    """Further ones, for runs of so many epochs or more; the longest last."""
    stochastic_depth: DepthRate | None = None
    tta: TtaName | None = None
    """What a submission averages over; None averages over mirror images where the training saw some."""

    @field_validator("train")
    @classmethod
    def _means_something(cls, train: dict[str, Any]) -> dict[str, Any]:
        _check(train)
        return train

    @field_validator("from_epochs")
    @classmethod
    def _each_means_something(cls, parts: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        for least, part in parts.items():
            _check(part, f"{least}.")
        return parts

    def fit(self, candidate: Candidate, epochs: int) -> Candidate:
        """`candidate` with this recipe, for so many epochs. Images that the search did not mirror are not mirrored."""
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
        return Candidate(arch=arch, train=TrainConfig.model_validate({**train, "epochs": epochs}))


def _check(part: dict[str, Any], prefix: str = "") -> None:
    if "epochs" in part:
        raise ValueError(f"{prefix}epochs: the recipe's own key `epochs` says how long it is")
    if "lr" in part and "optimiser" not in part:
        raise ValueError(f"{prefix}lr: means nothing without {prefix}optimiser, since rates differ by orders between optimisers")
    try:
        TrainConfig.model_validate(part)
    except ValidationError as error:
        raise ValueError(f"{prefix}{first_problem(error)}") from None


def recipe_names() -> list[str]:
    """Those that are files, and the two that are not."""
    return [SEARCHED, AUTO, *sorted(path.stem for path in (shipped_folder() / "recipes").glob("*.yaml"))]


def load_recipe(name_or_path: str, epochs: int) -> tuple[str, Recipe]:
    """With its name: that of the file, and of `auto` the one that suits so many epochs. Raises ConfigError with the names there
    are, or naming the file and the key."""
    if name_or_path == SEARCHED:
        return SEARCHED, Recipe()
    own = own_file(name_or_path, "recipe")
    if own is None:
        names = recipe_names()
        if name_or_path not in names:
            raise ConfigError(
                f"{name_or_path!r} is no recipe.{choices_sentence(name_or_path, names)}",
                hint="a path to a YAML file of your own works too: --recipe my-recipe.yaml",
            )
        name = ("long" if epochs >= LONG_FROM else "fast") if name_or_path == AUTO else name_or_path
        own = shipped_folder() / "recipes" / f"{name}.yaml"
    return own.stem, read_recipe(read_text(own), own)


def read_recipe(text: str, source: Path) -> Recipe:
    """Raises ConfigError, naming `source` and the key."""
    tree = read_yaml(text, str(source))
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: must be a mapping of keys to values, but is {tree!r}", hint=_example())
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_problem(error)}", hint=_example()) from None


def _example() -> str:
    return f"compare {shipped_folder() / 'recipes' / 'long.yaml'}"

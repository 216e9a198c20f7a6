"""How a chosen network is trained for the last time: recipes by name, `search_spaces/recipes/<name>.yaml`, or from a file.

A recipe takes the place of what the search drew, key by key; what it leaves open stays as it was searched.
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
    """Stochastic depth that grows with the run."""

    rate: Rate  # of the last block, in a run of …
    at_epochs: Epochs  # … so many epochs; a shorter run takes its share, a longer one no more

    def of(self, epochs: int) -> float:
        return self.rate * min(1.0, epochs / self.at_epochs)


class Recipe(Frozen):
    version: Literal[1] = 1
    about: str = ""  # in one line, for lists
    epochs: Epochs | None = None  # where none are asked for; None takes what the search's recipe would
    train: dict[str, Any] = Field(default_factory=dict)  # fields of TrainConfig
    from_epochs: dict[Epochs, dict[str, Any]] = Field(default_factory=dict)
    """Further ones, for runs of so many epochs or more; the longest last."""
    stochastic_depth: DepthRate | None = None
    tta: TtaName | None = None  # what a submission averages over; None averages over mirror images where the training saw some

    @field_validator("train")
    @classmethod
    def _means_something(cls, train: dict[str, Any]) -> dict[str, Any]:
        return _checked(train)

    @field_validator("from_epochs")
    @classmethod
    def _each_means_something(cls, parts: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        return {least: _checked(part, f"{least}.") for least, part in parts.items()}

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


def _checked(part: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    try:
        part = with_british_keys(part)
        if "epochs" in part:
            raise ValueError("epochs: the recipe's own key `epochs` says how long it is")
        if "lr" in part and "optimiser" not in part:
            raise ValueError(f"lr: means nothing without {prefix}optimiser, since rates differ by orders between optimisers")
        TrainConfig.model_validate(part)
    except ValidationError as error:
        raise ValueError(f"{prefix}{first_problem(error)}") from None
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from None
    return part


def recipe_names() -> list[str]:
    """Those that are files, and the two that are not."""
    return [SEARCHED, AUTO, *shipped_names("recipe")]


def load_recipe(name_or_path: str, epochs: int) -> tuple[str, Recipe]:
    """With its name: that of the file, and of `auto` the one that suits so many epochs. Raises ConfigError with the names there
    are, or naming the file and the key."""
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

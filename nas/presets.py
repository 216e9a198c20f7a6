"""The reported networks: spaces in which everything is fixed, `search_spaces/presets/<name>.yaml`."""

from dataclasses import dataclass

from nas.config import BudgetConfig, Candidate
from nas.errors import ConfigError, choices_sentence
from nas.space import Reported
from nas.space_file import read_space, shipped_folder

PREFIX = "preset:"


@dataclass(frozen=True)
class Preset:
    name: str
    candidate: Candidate
    budget: BudgetConfig
    """What the report's authors had to keep to."""
    reported: Reported


def preset_names() -> list[str]:
    return sorted(path.stem for path in (shipped_folder() / "presets").glob("*.yaml"))


def load_preset(name: str) -> Preset:
    """`name` with or without its prefix `preset:`. Raises ConfigError with the names there are."""
    name = name.removeprefix(PREFIX)
    names = preset_names()
    if name not in names:
        raise ConfigError(f"{name!r} is no preset.{choices_sentence(name, names)}", hint="nas presets shows them")
    path = shipped_folder() / "presets" / f"{name}.yaml"
    space = read_space(path.read_text(encoding="utf-8"), source=str(path), name=name)
    drawn = [slot.name for slot in space.slots if slot.drawn]
    if drawn or space.reported is None:
        raise ConfigError(
            f"{path}: a preset fixes every value and says what was reported; {', '.join(drawn) or 'reported'}: wrong"
        )
    candidate = space.candidate({slot.name: slot.domain for slot in space.slots})
    return Preset(name, candidate, space.budget, space.reported)

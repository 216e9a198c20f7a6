"""The reported networks: spaces in which everything is fixed, `search_spaces/presets/<name>.yaml`."""

from dataclasses import dataclass

from nas.config import BudgetConfig, Candidate
from nas.errors import ConfigError, choices_sentence
from nas.paths import PRESET, preset_names, shipped_folder
from nas.space.space import Reported
from nas.space.space_file import read_space, read_text


@dataclass(frozen=True)
class Preset:
    name: str
    candidate: Candidate
    budget: BudgetConfig
    """What the report's authors had to keep to."""
    reported: Reported


def load_preset(name: str) -> Preset:
    """`name` with or without its prefix `preset:`. Raises ConfigError with the names there are."""
    name = name.removeprefix(PRESET)
    names = preset_names()
    if name not in names:
        raise ConfigError(f"{name!r} is no preset.{choices_sentence(name, names)}", hint="nas presets shows them")
    path = shipped_folder() / "presets" / f"{name}.yaml"
    space = read_space(read_text(path), source=str(path), name=name)
    if drawn := [slot.name for slot in space.slots if slot.drawn]:
        raise ConfigError(f"{path}: a preset fixes every value, but draws {', '.join(drawn)}", hint="give each of them one value")
    if space.reported is None:
        raise ConfigError(
            f"{path}: reported: is missing; a preset says what was reported of its network",
            hint="for example  reported: {accuracy: 0.93, measured_on: test, params: 4479946}",
        )
    candidate = space.candidate({slot.name: slot.domain for slot in space.slots})
    return Preset(name, candidate, space.budget, space.reported)

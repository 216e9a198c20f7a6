"""How a study chooses its candidates, described: what stands in a space file's `study` section."""

from typing import Any, Literal

from pydantic import Field, model_validator

from nas.config.frozen import Frozen
from nas.config.metric import MetricName

ObjectiveName = Literal["accuracy", "front"]


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
    metric: MetricName = "accuracy"
    """Of the validation images: what networks are pruned, ranked and reported by."""
    objective: ObjectiveName = "accuracy"
    """accuracy: the best network under the budget. front: the best for every number of parameters up to the budget; each
    trial has a budget of its own, drawn below that."""

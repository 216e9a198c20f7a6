"""Makes samplers and pruners from their descriptions; checks their arguments, and fills in the defaults."""

import inspect
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nas.config import StrategyConfig, StudyConfig, what_is_wrong
from nas.errors import ConfigError, choices_sentence
from nas.study.pruners import PRUNERS, REDUCTION, FairPruner
from nas.study.samplers import SAMPLERS, SeededSampler, experiments_allowed

STARTUP_TRIALS = 2  # scripts/bench/README.md, "Search quality"
REGISTRIES: dict[str, dict[str, Any]] = {"sampler": SAMPLERS, "pruner": PRUNERS}
EPOCHS = "epochs"  # the parameter of every pruner's constructor that users do not set


def fill_defaults(study: StudyConfig) -> StudyConfig:
    """With every argument of its sampler and pruner, so that a study does not change when a default does. Raises ConfigError."""
    return study.model_copy(update={kind: _fill_defaults(kind, getattr(study, kind)) for kind in REGISTRIES})


def fill_new(study: StudyConfig, epochs: int, warmup: float) -> StudyConfig:
    """The same for a new study. Unless the study says otherwise, its pruner waits until some networks have completed, and does
    not prune after epoch 1 if the learning rate still rises then (`warmup`: the share of a training in which it rises). An
    argument that an older study does not store has the default of the pruner's signature. Raises ConfigError."""
    filled, said = fill_defaults(study), study.pruner.arguments
    reduction = filled.pruner.arguments.get("reduction", REDUCTION)
    first = max(-(-epochs // reduction**2), 2 if epochs * warmup > 1 else 1)
    waits = {"startup_trials": STARTUP_TRIALS, "first_rung": first, "warmup_epochs": first}
    changed = {
        key: waits[key] for key, value in filled.pruner.arguments.items() if key in waits and key not in said and not value
    }
    arguments = filled.pruner.arguments | changed
    return filled.model_copy(update={"pruner": StrategyConfig(name=study.pruner.name, arguments=arguments)})


def inherit_arguments(asked: StudyConfig, before: StudyConfig) -> StudyConfig:
    """`asked`, with the arguments of `before` that it does not give for the same sampler or pruner."""
    changed = {}
    for kind in REGISTRIES:
        new, old = getattr(asked, kind), getattr(before, kind)
        if new.name == old.name:
            changed[kind] = StrategyConfig(name=new.name, arguments=old.arguments | new.arguments)
    return asked.model_copy(update=changed)


def make_sampler(config: StrategyConfig, study_seed: int = 0) -> SeededSampler:
    config = _fill_defaults("sampler", config)
    sampler = SAMPLERS[config.name](**config.arguments)
    sampler.study_seed = study_seed
    return sampler


def make_pruner(config: StrategyConfig, epochs: int) -> FairPruner:
    config = _fill_defaults("pruner", config)
    with experiments_allowed():
        return PRUNERS[config.name](epochs, **config.arguments)


def describe(config: StrategyConfig) -> str:
    """`tpe (startup_trials 20, candidates 24)`"""
    listed = ", ".join(f"{name} {value}" for name, value in config.arguments.items() if value is not None)
    return f"{config.name} ({listed})" if listed else config.name


def _fill_defaults(kind: str, config: StrategyConfig) -> StrategyConfig:
    registry = REGISTRIES[kind]
    if config.name not in registry:
        raise ConfigError(
            f"study.{kind}: {config.name!r} is not a {kind}.{choices_sentence(config.name, registry)}",
            hint=f"--{kind} NAME, or `study: {{{kind}: NAME}}` in the space file",
        )
    known = {name: parameter for name, parameter in inspect.signature(registry[config.name]).parameters.items() if name != EPOCHS}
    for name in config.arguments:
        if name not in known:
            what = choices_sentence(name, known) if known else " It has none."
            raise ConfigError(
                f"study.{kind}.{name}: unknown argument of {config.name}.{what}", hint=_example(kind, config.name, known)
            )
    return StrategyConfig(
        name=config.name,
        arguments={
            name: _valid(f"study.{kind}.{name}", config.arguments[name], parameter.annotation)
            if name in config.arguments
            else parameter.default
            for name, parameter in known.items()
        },
    )


def _valid(key: str, value: Any, annotation: Any) -> Any:
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{key}: {what_is_wrong(error)}") from None


def _example(kind: str, name: str, known: dict[str, inspect.Parameter]) -> str | None:
    if not known:
        return None
    first, parameter = next(iter(known.items()))
    return f"for example  study: {{{kind}: {{name: {name}, {first}: {parameter.default}}}}}"

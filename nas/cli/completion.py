"""What the shell offers for an option's value. Lists are imported when they are asked for: `nas --help` must be quick. One whose
home imports torch or Optuna, which takes seconds, is written out here, and a test compares it."""

from collections.abc import Callable, Iterable


def among(choices: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """For typer's `autocompletion`."""

    def complete(begun: str) -> list[str]:
        return [one for one in choices() if one.startswith(begun)]

    return complete


def _studies() -> list[str]:
    from nas.paths import known_studies

    return known_studies()


def _spaces() -> list[str]:
    from nas.paths import shipped_names

    return shipped_names("space")


def _presets() -> list[str]:
    from nas.paths import PRESET, shipped_names

    return [f"{PRESET}{name}" for name in shipped_names("preset")]


def _subjects() -> list[str]:
    return ["best", *_presets()]


def _recipes() -> list[str]:
    from nas.space.recipes import recipe_names

    return recipe_names()


def _datasets() -> Iterable[str]:
    from nas.data.datasets import DATASETS

    return DATASETS


def _trackers() -> Iterable[str]:
    from nas.runs.trackers import TRACKERS

    return TRACKERS


def _named(literal: str) -> Callable[[], tuple[str, ...]]:
    """The values of a Literal, by its address."""

    def values() -> tuple[str, ...]:
        from importlib import import_module
        from typing import get_args

        module, _, name = literal.rpartition(".")
        return get_args(getattr(import_module(module), name))

    return values


complete_study = among(_studies)
complete_space = among(_spaces)
complete_network = among(lambda: [*_subjects(), *_spaces()])
complete_subject = among(_subjects)
complete_start = among(lambda: ["presets", *_presets(), *(f"study:{name}" for name in _studies())])
complete_recipe = among(_recipes)
complete_dataset = among(_datasets)
complete_sampler = among(lambda: ("tpe", "random", "gp", "qmc", "cmaes", "evolution"))
complete_pruner = among(lambda: ("asha", "hyperband", "median", "percentile", "patient", "none"))
complete_metric = among(_named("nas.config.MetricName"))
complete_balance = among(_named("nas.config.BalanceName"))
complete_resize = among(_named("nas.config.ResizeName"))
complete_channels = among(_named("nas.config.ChannelsName"))
complete_averaging = among(lambda: ("none", "flip", "flip_shift"))
complete_format = among(lambda: ("weights", "onnx", "torch"))
complete_tracker = among(_trackers)
complete_criterion = among(lambda: ("clean", "shifted"))
complete_device = among(lambda: ("auto", "cuda", "mps", "cpu"))

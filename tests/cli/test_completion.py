"""What a shell offers."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import get_args

import pytest

from nas.cli import completion
from nas.data.datasets import DATASETS
from nas.export import FORMATS
from nas.paths import StudyPaths
from nas.runs.trackers import TRACKERS
from nas.specs import Criterion
from nas.study.pruners import PRUNERS
from nas.study.samplers import SAMPLERS
from nas.train.evaluate import TTA


@pytest.mark.parametrize(
    ("complete", "choices"),
    [
        (completion.complete_sampler, SAMPLERS),
        (completion.complete_pruner, PRUNERS),
        (completion.complete_averaging, TTA),
        (completion.complete_format, FORMATS),
        (completion.complete_tracker, TRACKERS),
        (completion.complete_dataset, DATASETS),
        (completion.complete_criterion, get_args(Criterion)),
        (completion.complete_metric, ("accuracy", "balanced_accuracy", "macro_f1")),
        (completion.complete_balance, ("none", "loss", "sampling")),
        (completion.complete_resize, ("squash", "crop", "pad")),
        (completion.complete_channels, ("grey", "rgb")),
        (completion.complete_device, ("auto", "cuda", "mps", "cpu")),
    ],
)
def test_what_is_offered_is_what_there_is(complete: Callable[[str], list[str]], choices: Iterable[str]) -> None:
    assert complete("") == list(choices)


def test_networks_spaces_and_studies_are_offered_by_what_was_begun(study: StudyPaths) -> None:
    assert completion.complete_study("") == [study.name]
    assert completion.complete_space("dig") == ["digits"]
    assert completion.complete_recipe("") == ["searched", "auto", "fast", "long", "robust"]
    assert completion.complete_subject("preset:rob") == ["preset:robust-resnet64"]
    assert completion.complete_network("b") == ["best"]
    assert completion.complete_start("st") == [f"study:{study.name}"]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("nas search --sampler e", ["evolution"]),
        ("nas retrain --recipe ro", ["robust"]),
        ("nas export --format on", ["onnx"]),
        ("nas ablate b", ["best"]),
    ],
)
def test_a_shell_is_told(typed: str, offered: list[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_NAS_COMPLETE": "complete_bash"}
    code = "from nas.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered

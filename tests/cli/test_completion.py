"""What a shell offers."""

import os
import subprocess
import sys
from collections.abc import Iterable
from typing import get_args

import pytest

from nas import specs
from nas.cli.options import CHOICES, offer
from nas.data.datasets import DATASETS
from nas.export.formats import FORMATS
from nas.paths import StudyPaths
from nas.runs.trackers import TRACKERS
from nas.specs.options import options_of
from nas.study.pruners import PRUNERS
from nas.study.samplers import SAMPLERS
from nas.train.evaluate import TTA


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("sampler", SAMPLERS),
        ("pruner", PRUNERS),
        ("averaging", TTA),
        ("format", FORMATS),
        ("tracker", TRACKERS),
        ("dataset", DATASETS),
        ("criterion", get_args(specs.Criterion)),
        ("metric", ("accuracy", "balanced_accuracy", "macro_f1")),
        ("balance", ("none", "loss", "sampling")),
        ("resize", ("squash", "crop", "pad")),
        ("channels", ("grey", "rgb")),
        ("device", ("auto", "cuda", "mps", "cpu")),
    ],
)
def test_what_is_offered_is_what_there_is(name: str, choices: Iterable[str]) -> None:
    assert offer(name)("") == list(choices)


def test_networks_spaces_and_studies_are_offered_by_what_was_begun(study: StudyPaths) -> None:
    assert offer("study")("") == [study.name]
    assert offer("space")("dig") == ["digits"]
    assert offer("recipe")("") == ["searched", "auto", "fast", "long", "record", "robust"]
    assert offer("subject")("preset:rob") == ["preset:robust-resnet64"]
    assert offer("network")("b") == ["best"]
    assert offer("start")("st") == [f"study:{study.name}"]


@pytest.mark.parametrize("name", [name for name in vars(specs) if name.endswith("Spec") and name != "SeveralSpec"])
def test_every_completion_of_a_spec_exists(name: str) -> None:
    assert {option.complete for option in options_of(getattr(specs, name)).values()} - {None} <= CHOICES.keys()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("nas search --sampler e", ["evolution"]),
        ("nas retrain --recipe ro", ["robust"]),
        ("nas export --format on", ["onnx", "onnx-int8"]),
        ("nas ablate b", ["best"]),
    ],
)
def test_a_shell_is_told(typed: str, offered: list[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_NAS_COMPLETE": "complete_bash"}
    code = "from nas.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered

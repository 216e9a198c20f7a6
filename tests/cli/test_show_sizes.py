"""`nas show` at the size of other images: what a network, or a space, costs there."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.budget.closed_form import closed_form_macs, closed_form_params
from nas.config import ImageShape
from nas.paths import StudyPaths
from nas.space.space_file import load_preset
from tests.conftest import TINY_SPACE, Done


def test_a_preset_is_counted_for_images_of_the_size_that_is_asked_for(nas: Callable[..., Done]) -> None:
    typed = ("--image-size", "64", "--channels", "1", "--classes", "100", "--json")
    shown = json.loads(nas("show", "preset:resnet-1111", *typed).out)
    shape = ImageShape(channels=1, size=64, classes=100)
    arch = load_preset("preset:resnet-1111").candidate.arch
    assert shown["images"] == shape.model_dump()
    assert (shown["params"], shown["macs"]) == (closed_form_params(arch, shape), closed_form_macs(arch, shape))


def test_a_trial_is_counted_for_other_images_than_its_studys(nas: Callable[..., Done], study: StudyPaths) -> None:
    usual, larger = (json.loads(nas("show", "best", *typed, "--json").out) for typed in ((), ("--size", "16")))
    assert (usual["images"]["size"], larger["images"]["size"]) == (8, 16)
    assert larger["params"] == usual["params"]
    assert larger["macs"] > 3 * usual["macs"]


def test_a_space_is_measured_for_other_images(nas: Callable[..., Done]) -> None:
    Path("tiny.yaml").write_text(TINY_SPACE)
    typed = ("show", "tiny.yaml", "--draws", "40", "--json")
    usual, larger = (json.loads(nas(*typed, *more).out) for more in ((), ("--image-size", "64")))
    assert (usual["images"]["size"], larger["images"]["size"]) == (32, 64)
    assert list(usual["cost"]) == ["10%", "50%", "90%"]
    assert larger["cost"]["50%"] == pytest.approx(4 * usual["cost"]["50%"], rel=0.05)
    done = nas("show", "tiny.yaml", "--draws", "40", "--image-size", "64")
    assert "on images of 64×64" in done.out
    assert "MACs of the networks within the parameter limit: 10% below " in done.out


def test_images_too_small_for_a_space_are_refused(nas: Callable[..., Done]) -> None:
    done = nas("show", "resnet-224", "--draws", "3", "--image-size", "8")
    assert done.code == 1
    assert "would halve a feature map of 1×1: images of 8×8 with a stem of stride 2 that pools allow" in done.err

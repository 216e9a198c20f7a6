"""`nas check`"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.config import ImageShape
from nas.errors import ConfigError
from nas.foreign import ForeignName
from nas.foreign.measure import ForeignFacts, measure
from nas.paths import StudyPaths
from tests.conftest import Nas
from tests.foreign.networks import Net


def test_model_of_torchvision_is_told_how_much_it_is_over(nas: Nas) -> None:
    """In a process of its own, as for a user."""
    done = nas("check", "torchvision:resnet18", "--classes", "10", "--timeout", "5m")
    assert (done.code, done.err) == (1, "")
    assert done.out.startswith("torchvision:resnet18: resnet18(num_classes=10)\non images of 3×32×32 in 10 classes\n")
    assert "\n11,181,642 parameters (11.18 M), 6,181,642 (124%) over the budget of 5,000,000\n" in done.out
    assert "\n37,118,464 MACs (37.12 M), no limit\n" in done.out
    assert "\nIt does not fit.\n" in done.out
    assert "layer4.1  BasicBlock     512×1×1    4,720,640  4.72M  no" in done.out


def test_preset_that_fits_is_told_what_more_it_could_have(nas: Nas) -> None:
    done = nas("check", "preset:resnet-443")
    assert (done.code, done.err) == (0, "")
    assert "\n4,697,162 parameters (4.697 M), 302,838 (6%) below the budget of 5,000,000\n" in done.out
    assert "\nIt fits.\n" in done.out
    assert "\nstage 2       4       5       128     136  one more block costs" not in done.out
    assert "\nstage 2       4       5       128     136  295,424 parameters, 75.6M MACs\n" in done.out
    assert done.out.splitlines()[-1].startswith("All stages wider together: 72-128-264 channels, 4,983,730 parameters, ")
    over = nas("check", "preset:resnet-443", "--max-params", "1M")
    assert over.code == 1
    assert "3,697,162 (370%) over the budget of 1,000,000\n" in over.out
    assert "\nstage 3       3       –       256       –  " in over.out
    assert "\nAll stages narrower together: 32-64-112 channels, 993,706 parameters, " in over.out


def test_network_of_a_study_is_checked_as_json(nas: Nas, study: StudyPaths) -> None:
    done = nas("check", "--study", "tiny", "--json")
    found = json.loads(done.out)
    shown = nas("show", "best", "--study", "tiny", "--json").json
    assert done.code == 0
    assert found["fits"]
    same = ("params", "macs", "memory", "layers", "parts", "images", "study")
    assert {key: found[key] for key in same} == {key: shown[key] for key in same}
    left = 3000 - found["params"]
    assert found["limits"] == {"params": {"limit": 3000, "value": found["params"], "left": left, "kept": True}}
    assert [room["blocks"] for room in found["affordable"]["stages"]] == [1, 1]


@pytest.fixture
def measured_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`net.py` names a network whose code prints."""

    def inspect(name: ForeignName, shape: ImageShape, timeout: float, printed: Callable[[str], None]) -> ForeignFacts:
        printed("one line\nanother")
        if name.attribute != "Net":
            raise ConfigError("it cannot be built", hint="build another")
        return measure(Net(num_classes=shape.classes), "Net(num_classes=10)", shape)

    (tmp_path / "net.py").touch()
    monkeypatch.setattr("nas.report.check.inspect_network", inspect)


@pytest.mark.usefixtures("measured_here")
def test_output_of_a_users_file_is_shown_apart(nas: Nas) -> None:
    nas("presets")  # whatever measuring prints here is no part of what is looked at
    done = nas("check", "net.py:Net", "--size", "8")
    assert done.code == 0
    assert done.err == "net.py printed:\n  | one line\n  | another\n\n"
    assert "net.py:Net: Net(num_classes=10)\non images of 3×8×8 in 10 classes\n" in done.out
    assert "\nbody.1  Block       8×8×8          592  37.9k  8443 more\n" in done.out
    assert "with all widths multiplied by 57.77 it would fill the budget" in done.out
    failed = nas("check", "net.py:Nett")
    assert (failed.code, failed.out) == (1, "")
    assert failed.err.startswith("net.py printed:\n  | one line\n")
    assert failed.err.endswith("Error: it cannot be built\nNext:  build another\n")


@pytest.mark.usefixtures("measured_here")
def test_output_of_a_users_file_is_a_field_of_the_json(nas: Nas) -> None:
    done = nas("check", "net.py:Net", "--json")
    found = json.loads(done.out[done.out.index("{") :])
    assert (found["printed"], found["built"], done.err) == ("one line\nanother", "Net(num_classes=10)", "")
    assert (found["repeats"][0]["copies"], found["affordable"]) == ((5_000_000 - found["params"]) // 592, None)

"""What is said of a known network before it is trained, how its folder is named, and that it is built again as it was tried."""

import copy
import sys
from pathlib import Path

import pytest
import torch

from nas.budget import params_of
from nas.config import BudgetConfig, ImageShape
from nas.errors import ConfigError
from nas.files import sha256_of
from nas.foreign import build_network
from nas.foreign.inspection import try_step
from nas.foreign.known import KnownNetwork, build, measure, named, over_budget

pytestmark = pytest.mark.usefixtures("user_file")
DIGITS = ImageShape(channels=1, size=8, classes=10)
CIFAR = ImageShape(channels=3, size=32, classes=10)


def tried(text: str) -> bool:
    name = named(text)
    model, built = build_network(name, CIFAR)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    return try_step(model, built, CIFAR, name)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            "Maps",
            r"Maps\(num_classes=10\) returns \(2, 10, 32, 32\) in training, but must return one tensor "
            r"\(2, 10\) for 2 images and 10 classes",
        ),
        ("Net(num_classes=7)", r"returns \(2, 7\) in training"),
        (
            "Auxiliary",
            r"Auxiliary\(.*\) returns a tuple of 2 tensors in training \(perhaps auxiliary outputs\)",
        ),
        ("Frozen", "has no trainable parameter"),
        ("Counts", "keeps '_extra_state' in its state_dict, a dict"),
    ],
)
def test_what_cannot_be_trained_is_refused(network: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tried(f"mine.py:{network}")


def test_auxiliary_classifiers_of_torchvision_can_be_left_out() -> None:
    with pytest.raises(ConfigError, match="returns a GoogLeNetOutputs of 3 tensors in training") as refused:
        tried("torchvision:googlenet(init_weights=False)")
    assert "'torchvision:googlenet(init_weights=False, aux_logits=False)'" in refused.value.hint


def test_memory_s_order_is_found_out() -> None:
    assert not tried("mine.py:Rows"), "it views its maps as rows"
    assert tried("mine.py:Net(num_classes=10)")


def test_torchvision_s_networks_take_colour() -> None:
    with pytest.raises(ConfigError, match=r"takes no images of 1×8×8") as refused:
        measure("torchvision:resnet18", DIGITS, BudgetConfig(params=1000), 250, lambda name, text: None)
    assert "self.net(images.repeat(1, 3, 1, 1))" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("preset:resnet-443", "is a network of nas itself", "nas retrain preset:resnet-443"),
        ("best", "is a network of nas itself", "nas retrain best"),
        ("12", "is a network of nas itself", "nas retrain 12"),
        ("resnet-443", "is not a network that nas baseline can train", "nas retrain preset:resnet-443"),
        ("resnet18", "Choices: torchvision:NAME, timm:NAME, FILE.py:CLASS", "nas baseline torchvision:resnet18"),
        ("gone.py:Net", "there is no file gone.py", "net.py:Net"),
    ],
)
def test_networks_of_ours_and_of_nobody_are_refused(text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        named(text)
    assert hint in refused.value.hint


def network(name: str, **changes: object) -> KnownNetwork:
    facts = {"built": "", "files": {}, "text": None, "params": 1, "macs": 1, "over": {}, "unknown": (), "channels_last": True}
    return KnownNetwork.model_validate({"name": name, "digest": "0123456789abcdef", **facts, **changes})


def test_folder_s_name_says_which_network_it_is(user_file: Path) -> None:
    assert network("torchvision:resnet18").slug == "torchvision-resnet18"
    assert network("torchvision:resnet18(width_per_group=32)").slug == "torchvision-resnet18-width_per_group-32-01234567"
    assert network("timm:resnet18").slug == "timm-resnet18"
    assert network("./mine.py:Net(width=3)").slug == "mine-Net-width-3-01234567"
    assert len(network("mine.py:Net(name=" + repr("x" * 200) + ")").slug) < 80


def test_budget_is_held_against_what_can_be_counted() -> None:
    limits = BudgetConfig(params=100, macs=1000, memory=50)
    assert over_budget(limits, {"params": 150, "macs": None, "memory": 50}) == {"params": 50}
    assert network("torchvision:vgg11", over={"params": 50, "macs": 7}).over_text == "50 parameters and 7 MACs"


def write_net(folder: Path, layers: str, imports: str = "") -> None:
    text = f"{imports}from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), {layers})\n"
    (folder / "net.py").write_text(text)


def test_network_that_is_built_otherwise_each_time_is_refused(tmp_path: Path) -> None:
    write_net(tmp_path, "nn.Linear(64, 10)")
    with pytest.raises(ConfigError, match="has 650 parameters here, and had 1 when it was measured"):
        build(network("net.py:net"), DIGITS)


def test_network_that_a_file_keeps_whole_is_not_trained_itself(tmp_path: Path) -> None:
    (tmp_path / "kept.py").write_text("from torch import nn\nnet = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n")
    (tmp_path / "net.py").write_text("from kept import net\n")
    known = network("net.py:net", params=650)
    first, second = build(known, DIGITS), build(known, DIGITS)
    with torch.no_grad():
        first[1].weight.zero_()
    assert second[1].weight.any()
    assert build(known, DIGITS)[1].weight.any()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # it is deprecated, and used
def test_weights_that_are_computed_can_be_copied_as_in_the_trial(tmp_path: Path) -> None:
    write_net(tmp_path, "nn.utils.weight_norm(nn.Linear(64, 10)), nn.LazyLinear(10)")
    model = build(network("net.py:net", params=650 + 10 + 110), DIGITS)
    assert model.training
    copy.deepcopy(model)


def test_helpers_of_one_name_in_two_folders_are_each_their_own(tmp_path: Path) -> None:
    networks = []
    for name, bias in (("one", True), ("other", False)):
        folder = tmp_path / name
        (folder / "parts").mkdir(parents=True)
        (folder / "parts" / "heads.py").write_text(f"BIAS = {bias}\n")
        (folder / "helper.py").write_text("from parts.heads import BIAS\n")
        write_net(folder, "nn.Linear(64, 10, bias=helper.BIAS)", "import helper\n")
        files = {str(file.relative_to(folder)): sha256_of(file) for file in folder.rglob("*.py")}
        networks.append(network(f"{folder}/net.py:net", params=650 if bias else 640, files=files))
    before = [*sys.path]
    for one in (*networks, *networks):
        assert params_of(build(one, DIGITS)) == one.params
    assert sys.path == [*before, str(tmp_path / "one"), str(tmp_path / "other")]


def test_files_named_as_python_s_own_stand_in_for_nothing(tmp_path: Path) -> None:
    for name in ("types", "signal", "wave"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('mine, and not the one that is meant')")
    write_net(tmp_path, "nn.Linear(64, 10, bias=hasattr(wave, 'Wave_read'))", "import signal, types, wave\n")
    before = sys.modules["types"]
    build(network("net.py:net", params=650), DIGITS)
    assert sys.modules["types"] is before


def test_helper_that_was_changed_is_imported_anew(tmp_path: Path) -> None:
    write_net(tmp_path, "nn.Linear(64, helper.WIDTH)", "import helper\n")
    for width in (3, 10):
        (tmp_path / "helper.py").write_text(f"WIDTH = {width}\n")
        assert params_of(build(network("net.py:net", params=65 * width), DIGITS)) == 65 * width

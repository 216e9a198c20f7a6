"""Exported networks predict as `nas submit` does: ONNX, torch.export, and a folder that needs nothing of this package."""

import csv
import json
import random
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from nas.config import DataConfig
from nas.data.datasets import load_dataset
from nas.data.images import evenly
from nas.errors import ConfigError, StudyError
from nas.export import formats
from nas.export.formats import FORMATS, Predictor, export
from nas.export.standalone import standalone_source
from nas.models import build_model
from nas.paths import StudyPaths
from nas.runs.load import load_network
from nas.runs.select import find_run
from nas.runs.statistics import accuracy_interval
from nas.specs import ExportSpec
from tests.budget.test_closed_form import any_network, any_shape
from tests.conftest import Done


@pytest.fixture
def images() -> np.ndarray:
    """All of the digits, uint8 (1797, 8, 8, 1)."""
    dataset = load_dataset(DataConfig(dataset="digits"))
    return np.concatenate([dataset.train.images, dataset.test.images])


def submitted(nas: Callable[..., Done], images: np.ndarray, folder: Path) -> list[int]:
    """What `nas submit` predicts."""
    np.savez(folder / "images.npz", data=images)
    done = nas("submit", str(folder / "images.npz"), "--study", "tiny", "--output", str(folder / "out.csv"), "--device", "cpu")
    assert done.code == 0, done.err
    with (folder / "out.csv").open() as file:
        return [int(row["Labels"]) for row in csv.DictReader(file)]


def expected(paths: StudyPaths, images: np.ndarray, tta: str | None = None) -> torch.Tensor:
    model, card = load_network(find_run(paths, None))
    with torch.inference_mode():
        return Predictor(model, card.mean, card.std, tta or card.tta).eval()(torch.from_numpy(images))


def loaded(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What an exported file computes of images."""
    if file.suffix == ".pt2":
        program = torch.export.load(file).module()
        return lambda images: program(torch.from_numpy(images)).detach().numpy()
    session = pytest.importorskip("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == [str(i) for i in range(10)]
    return lambda images: session.run(["logits"], {"images": images})[0]


@pytest.mark.slow
@pytest.mark.parametrize(("form", "suffix", "apart"), [("onnx", ".onnx", 1e-4), ("torch", ".pt2", 1e-5)])
def test_file_predicts_as_a_submission(
    nas: Callable[..., Done], study: StudyPaths, images: np.ndarray, tmp_path: Path, form: str, suffix: str, apart: float
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    file = tmp_path / f"network{suffix}"
    done = nas("export", "--study", "tiny", "--format", form, "--output", str(file))
    assert done.code == 0, done.err
    compute = loaded(file)
    for part in (images[:1], images[:1000], images[:37]):
        assert np.abs(compute(part) - expected(study, part).numpy()).max() <= apart
    assert compute(images).argmax(1).tolist() == submitted(nas, images, tmp_path)


def test_folder_predicts_exactly_without_this_package(
    nas: Callable[..., Done], study: StudyPaths, images: np.ndarray, tmp_path: Path
) -> None:
    done = export(ExportSpec(study, output=tmp_path / "network"))
    assert done.difference == 0.0
    assert {file.name for file in done.path.iterdir()} == {"README.md", "model.py", "model.json", "model.safetensors"}
    np.save(tmp_path / "images.npy", images)
    script = (
        "import sys, numpy, torch\n"
        "class Barred:\n"
        "    def find_spec(self, name, *rest):\n"
        "        assert name.partition('.')[0] not in ('nas', 'pydantic', 'optuna', 'safetensors'), name\n"
        "sys.meta_path.insert(0, Barred())\n"
        "import model\n"
        "network = model.load()\n"
        "with torch.inference_mode():\n"
        f"    logits = network(torch.from_numpy(numpy.load({str(tmp_path / 'images.npy')!r})))\n"
        f"numpy.save({str(tmp_path / 'logits.npy')!r}, logits.numpy())\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=done.path, check=True, timeout=120)
    logits = np.load(tmp_path / "logits.npy")
    assert logits.argmax(1).tolist() == submitted(nas, images, tmp_path)
    assert np.allclose(logits, expected(study, images).numpy(), atol=1e-6)
    Image.fromarray(images[0, :, :, 0]).save(tmp_path / "digit.png")
    ran = subprocess.run([sys.executable, "model.py", str(tmp_path / "digit.png")], cwd=done.path, capture_output=True, text=True)
    assert ran.stdout.startswith(f"{tmp_path / 'digit.png'}: {int(logits[0].argmax())} ")


def test_folder_reads_weights_as_safetensors_does(study: StudyPaths, tmp_path: Path) -> None:
    """Of each type and shape that a network's state may have."""
    done = export(ExportSpec(study, output=tmp_path / "network"))
    types = (*(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool), torch.int64, torch.int32, torch.uint8)
    tensors = {f"{kind} {shape}": torch.ones(shape, dtype=kind) for kind in types for shape in ((), (0, 3), (3, 1, 5))}
    save_file(tensors | {"signed": torch.tensor([-1], dtype=torch.int8)}, tmp_path / "any.safetensors", {"made": "here"})
    module = runpy.run_path(str(done.path / "model.py"))
    for file in (tmp_path / "any.safetensors", done.path / "model.safetensors"):
        read, expected = module["read_safetensors"](file), load_file(file)
        assert read.keys() == expected.keys()
        assert all(read[name].dtype == one.dtype and torch.equal(read[name], one) for name, one in expected.items())


def test_folder_has_a_card_for_the_hub(study: StudyPaths, tmp_path: Path) -> None:
    _, card = load_network(find_run(study, None))
    text = (export(ExportSpec(study, output=tmp_path / "network")).path / "README.md").read_text()
    assert text.startswith("---\nlicense: ")
    header = yaml.safe_load(text.split("---\n")[1])
    assert (header["license"], header["pipeline_tag"]) == ("unknown", "image-classification")
    results = header["model-index"][0]["results"]
    assert [one["dataset"]["name"] for one in results] == ["digits"]
    assert results[0]["metrics"] == [{"type": "accuracy", "value": round(card.test_accuracy_tta, 4)}]
    low, high = accuracy_interval(card.test_accuracy_tta, card.test_images)
    shares = f"{100 * card.test_accuracy_tta:.2f} % | {100 * low:.2f} to {100 * high:.2f} %"
    assert f"| official test set | {card.test_images} | {shares} |" in text
    assert f"{card.params:,} parameters" in text
    unmeasured = (export(ExportSpec(study, output=tmp_path / "other", tta="flip")).path / "README.md").read_text()
    assert "Its accuracy was not measured" in unmeasured
    assert yaml.safe_load(unmeasured.split("---\n")[1]).keys() == header.keys() - {"model-index"}


@pytest.mark.slow
def test_standalone_builds_every_network_as_this_package_does(tmp_path: Path) -> None:
    """Random ones, of every block and stem: the same parameters, and the same logits from the same weights."""
    lots = random.Random(3)
    (tmp_path / "model.py").write_text(standalone_source("any", any_network(random.Random(0), any_shape(random.Random(0)))))
    script = ["import json, sys, torch, model", "from safetensors.torch import load_file", "torch.set_num_threads(1)"]
    script += [
        "for line in open('jobs.jsonl'):",
        "    job = json.loads(line)",
        "    net = model.build_model(model.Config.of(job['arch']), model.Config.of(job['shape'])).eval()",
        "    net.load_state_dict(load_file(job['weights']))",
        "    x = load_file(job['images'])",
        "    with torch.inference_mode():",
        "        assert torch.equal(net(x['images']), x['logits']), job['arch']",
    ]
    jobs = []
    for number in range(40):
        shape = any_shape(lots).model_copy(update={"size": lots.choice([8, 9, 16])})
        arch = any_network(lots, shape)
        torch.manual_seed(number)
        model = build_model(arch, shape).eval()
        weights, tensors = tmp_path / f"{number}.safetensors", tmp_path / f"{number}.images"
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
        picture = torch.randn(2, shape.channels, shape.size, shape.size)
        with torch.inference_mode():
            save_file({"images": picture, "logits": model(picture).clone()}, tensors)
        job = {"arch": arch.model_dump(mode="json"), "shape": shape.model_dump(), "weights": str(weights), "images": str(tensors)}
        jobs.append(json.dumps(job))
    (tmp_path / "jobs.jsonl").write_text("\n".join(jobs) + "\n")
    subprocess.run([sys.executable, "-c", "\n".join(script)], cwd=tmp_path, check=True, timeout=240)


def test_bf16_weights_are_written_beside_the_original(nas: Callable[..., Done], study: StudyPaths, tmp_path: Path) -> None:
    done = export(ExportSpec(study, output=tmp_path / "network", bf16=True))
    assert done.bf16_bytes is not None
    whole, halved = (load_file(done.path / name) for name in ("model.safetensors", "model.bf16.safetensors"))
    assert {tensor.dtype for tensor in halved.values() if tensor.is_floating_point()} == {torch.bfloat16}
    assert halved.keys() == whole.keys()
    _, card = load_network(find_run(study, None))
    assert done.accuracy == pytest.approx(card.test_accuracy_tta)
    assert done.bf16_accuracy == pytest.approx(done.accuracy, abs=0.05)
    words = nas("export", "--study", "tiny", "--bf16").out
    assert f"Accuracy on the official test set: {done.accuracy:.2%}, in bfloat16 {done.bf16_accuracy:.2%}" in words


def operators(file: Path, folder: Path) -> list[str]:
    """Of the graph as onnxruntime runs it, after its own optimisation."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


@pytest.mark.slow
def test_every_convolution_of_an_int8_file_computes_in_eight_bits(
    nas: Callable[..., Done], study: StudyPaths, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.export.int8.SHARE_TO_BLAME", -1.0)  # so that each layer is looked at
    done = export(ExportSpec(study, format="onnx-int8", output=tmp_path / "network.onnx", tta="none"))
    floats = export(ExportSpec(study, format="onnx", output=tmp_path / "float.onnx", tta="none"))
    model, _ = load_network(find_run(study, None))
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())
    found = operators(done.path, tmp_path)
    assert (found.count("QLinearConv"), sum("Conv" in name for name in found)) == (convolutions, convolutions)
    assert done.bytes < 0.6 * floats.bytes == 0.6 * done.int8.float_bytes
    dataset = load_dataset(DataConfig(dataset="digits"))
    assert (done.int8.images, done.int8.judged_on) == (len(dataset.test), "images of the official test set")
    answers = loaded(done.path)(dataset.test.images).argmax(1)
    original = expected(study, dataset.test.images, "none").argmax(1).numpy()
    assert done.int8.accuracy == pytest.approx((answers == dataset.test.labels).mean())
    assert done.int8.float_accuracy == pytest.approx((original == dataset.test.labels).mean())
    assert done.int8.changed == (answers != original).sum() <= 0.05 * len(dataset.test)
    assert done.int8.milliseconds > 0 < done.int8.float_milliseconds
    assert all(0 < count <= done.int8.images for count in done.int8.blamed.values())
    # What stays in float does.
    words = nas(
        "export", "--study", "tiny", "--format", "onnx-int8", "--keep-float", "stages", "--output", str(tmp_path / "kept")
    )
    assert f"Accuracy on {len(dataset.test)} images of the official test set: " in words.out
    within = sum(isinstance(module, torch.nn.Conv2d) for module in model.stages.modules())
    assert operators(tmp_path / "kept", tmp_path).count("QLinearConv") == convolutions - within > 0


@pytest.mark.slow
def test_from_the_budget_of_a_microcontroller_to_a_file_in_eight_bits(nas: Callable[..., Done], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "network.onnx"
    for command in (
        "search --space resnet-mcu --dataset digits --study mcu --trials 1 --epochs 1 --device cpu",
        "retrain best --study mcu --epochs 1 --device cpu",
        f"export --study mcu --format onnx-int8 --tta none --output {file}",
    ):
        done = nas(*command.split())
        assert done.code == 0, done.err
    limits = json.loads(nas("check", "best", "--study", "mcu", "--json").out)["limits"]
    kept = {name: (one["limit"], one["kept"]) for name, one in limits.items() if name != "macs"}
    assert kept == {"flash": (1_000_000, True), "ram": (256_000, True)}
    assert file.stat().st_size < 1_000_000


def test_too_few_images_are_no_calibration(study: StudyPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("nas.export.formats.CALIBRATION_IMAGES", 31)
    with pytest.raises(ConfigError, match="on at least 32 training images, but there are 31"):
        export(ExportSpec(study, format="onnx-int8", output=tmp_path / "network.onnx"))
    assert not [*tmp_path.glob("network*"), *tmp_path.glob(".nas-export*")]


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_a_format_whose_package_is_absent_is_refused(
    nas: Callable[..., Done], study: StudyPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, package, None if package == missing else torch)  # any module
    done = nas("export", "--study", "tiny", "--format", "onnx-int8", "--output", str(tmp_path / "network.onnx"))
    message = f"Error: --format onnx and onnx-int8 need {missing}, which is not installed\n"
    assert (done.code, done.err) == (1, f"{message}Next:  pip install 'nas-under-budget[onnx]'\n")
    assert not [*tmp_path.glob("network*"), *tmp_path.glob(".nas-export*")]


@pytest.mark.parametrize("form", FORMATS)
def test_export_does_not_overwrite_existing_files(nas: Callable[..., Done], study: StudyPaths, tmp_path: Path, form: str) -> None:
    (tmp_path / "there").mkdir()
    done = nas("export", "--study", "tiny", "--format", form, "--output", str(tmp_path / "there"))
    message = f"Error: {tmp_path / 'there'} already exists, and is not overwritten\n"
    assert (done.code, done.err) == (1, f"{message}Next:  choose another path with --output, or remove it\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "onxx"], "'onxx' is not an export format. Did you mean 'onnx'?"),
        (["--format", "onnx", "--bf16"], "--bf16 works only with --format weights"),
        (["--format", "onnx", "--keep-float", "classifier"], "--keep-float goes with --format onnx-int8 alone"),
        (["--format", "onnx-int8", "--keep-float", "head"], "--keep-float 'head' is not a layer with weights. Choices: "),
        (["--tta", "flips"], "'flips' is not a test-time augmentation."),
        (["nowhere"], "'nowhere' is not a retrained network of study 'tiny'."),
    ],
)
def test_mistakes_are_refused(nas: Callable[..., Done], study: StudyPaths, options: list[str], message: str) -> None:
    done = nas("export", "--study", "tiny", *options)
    assert done.code == 1
    assert done.err.startswith(f"Error: {message}")
    assert not (study.folder / "exported").exists()
    Path("file").touch()
    assert "Error: file/network cannot be written: " in nas("export", "--study", "tiny", "--output", "file/network").err


def test_export_that_does_not_predict_the_same_is_not_kept(
    study: StudyPaths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, real = formats.FORMATS["weights"]
    monkeypatch.setitem(formats.FORMATS, "weights", ("", lambda *given: real(*given) + 1))
    with pytest.raises(StudyError, match=r"predicts differently from the original: its logits differ by up to 1$"):
        export(ExportSpec(study, output=tmp_path / "network"))
    assert not [*tmp_path.glob("network*"), *tmp_path.glob(".nas-export*")]


@pytest.mark.parametrize(("count", "most", "last"), [(5000, 1000, 4999), (20, 1000, 19), (1, 1000, 0)])
def test_images_that_show_which_layer_costs_accuracy_are_from_all_of_them(count: int, most: int, last: int) -> None:
    chosen = evenly(count, most)
    assert len(chosen) == min(count, most)
    assert (chosen[0], chosen[-1]) == (0, last)
    assert len(chosen) < 3 or np.diff(chosen).max() <= 1 + count // most

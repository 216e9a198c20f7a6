"""Writes a retrained network in one of the forms, and checks that it predicts as it does here."""

import json
import runpy
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nas.data.cache import Progress, silent
from nas.data.datasets import load_dataset
from nas.data.images import Dataset, ImageSet
from nas.data.splits import DataSelection, select_data
from nas.data.stream import place
from nas.errors import ConfigError, DataError, StudyError, choices_sentence
from nas.export.int8 import CALIBRATION_IMAGES, Int8, onnx_session, quantise, require_layers, weighted_layers
from nas.export.standalone import TEMPLATES, standalone_source
from nas.models.user_code import blaming_block
from nas.paths import StudyPaths, TrialPaths
from nas.runs.card import ModelCard, write_card
from nas.runs.context import study_data
from nas.runs.evaluation import judge
from nas.runs.ledger import Note, require_as_recorded
from nas.runs.load import load_network
from nas.runs.select import find_run
from nas.runs.statistics import accuracy_interval
from nas.specs import ExportSpec
from nas.study.settings import read_settings
from nas.train.evaluate import TTA, require_tta

LARGEST_DIFFERENCE = 1e-4
"""Between logits of the exported form and torch's, of logits about as large as 10: float32 sums in another order."""
CHECKED_IMAGES = 16
MOST_CLASSES = 20  # that a model card names
INT8 = "onnx-int8"
JUDGED_TRAINING_IMAGES = 2000


@dataclass(frozen=True)
class Exported:
    path: Path
    run: str
    bytes: int
    difference: float  # largest, between its logits and torch's on random images
    bf16_bytes: int | None = None
    bf16_difference: float | None = None  # likewise, of its weights in bfloat16
    accuracy: float | None = None  # on the official test set, where it has labels and was not trained on
    bf16_accuracy: float | None = None
    int8: Int8 | None = None


class Predictor(nn.Module):
    """Normalisation, network and test-time augmentation in one: uint8 (N, H, W, C) → float32 logits (N, classes)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float], tta: str) -> None:
        """Raises ConfigError for a `tta` that there is not."""
        require_tta(tta)
        super().__init__()
        self.model, self.tta = model, tta
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("scale", 1.0 / torch.tensor(std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        normalised = (images.float() - self.mean) * self.scale
        return TTA[self.tta](self.model, normalised.permute(0, 3, 1, 2))


def export(request: ExportSpec, progress: Progress = silent, note: Note = lambda text: None) -> Exported:
    """Whole or not at all. Raises NasError."""
    if request.format not in FORMATS:
        raise ConfigError(f"{request.format!r} is not an export format.{choices_sentence(request.format, FORMATS)}")
    if request.bf16 and request.format != "weights":
        raise ConfigError("--bf16 works only with --format weights", hint="nas export --format weights --bf16")
    if request.keep_float and request.format != INT8:
        raise ConfigError(f"--keep-float goes with --format {INT8} alone", hint=f"nas export --format {INT8} --keep-float LAYER")
    paths, (suffix, write) = request.paths, FORMATS[request.format]
    run = find_run(paths, request.run, note, "nas export ")
    model, card = load_network(run)
    require_as_recorded(paths, run, card, note)
    require_layers(request.keep_float, weighted_layers(model))
    named = (paths.folder if paths else Path()) / "exported" / f"{run.folder.name}{suffix}"
    output = request.output or named
    if output.exists():
        raise StudyError(
            f"{output} already exists, and is not overwritten", hint="choose another path with --output, or remove it"
        )
    predictor = Predictor(model, card.mean, card.std, request.tta or card.tta).eval()
    size = CHECKED_IMAGES, card.shape.size, card.shape.size, card.shape.channels
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8))
    with torch.inference_mode():
        expected = predictor(images)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{output} cannot be written: {error.strerror}", hint="choose another path with --output") from None
    with tempfile.TemporaryDirectory(prefix=".nas-export-", dir=output.parent) as folder:
        unfinished = Path(folder) / output.name
        with blaming_block(card.candidate.arch, f"cannot be exported by --format {request.format}"):
            for file in progress([unfinished], f"exporting as {request.format}", 1):  # takes seconds
                computed = write(predictor, card, run, file, images)
        difference = float((computed - expected).abs().max())
        if not difference <= LARGEST_DIFFERENCE * max(1.0, float(expected.abs().max())):
            raise StudyError(
                f"the exported network predicts differently from the original: its logits differ by up to {difference:.2g}",
                hint="nothing was written; please open an issue with the output of nas show and nas doctor",
            )
        more: dict[str, Any] = {}
        if request.bf16:
            data = _data_of(paths, card, progress, note) if card.test_accuracy is not None else None
            more = _write_bf16(predictor, card, unfinished, images, expected, None if data is None else data.test, progress)
        if request.format == INT8:
            original = unfinished.rename(unfinished.with_name("float.onnx"))
            more["int8"] = _quantise(predictor, paths, card, original, unfinished, request.keep_float, progress, note)
        shutil.move(unfinished, output)
    written = sum(file.stat().st_size for file in output.rglob("*")) if output.is_dir() else output.stat().st_size
    return Exported(output, run.folder.name, written, difference, **more)


def _write_onnx(predictor: Predictor, card: ModelCard, run: TrialPaths, output: Path, images: Tensor) -> Tensor:
    """Input `images`, uint8 (N, H, W, C) with any N; output `logits`."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ConfigError(
            f"--format onnx and {INT8} need {error.name}, which is not installed", hint="pip install 'nas-under-budget[onnx]'"
        ) from None
    torch.onnx.export(
        predictor,
        (images[:2],),
        output,
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
        external_data=False,
    )
    written = onnx.load(output)
    said = {"classes": json.dumps(list(card.classes)), "tta": str(predictor.tta), "made_by": f"nas, {card.subject}"}
    onnx.helper.set_model_props(written, {one.key: one.value for one in written.metadata_props} | said)
    onnx.save(written, output)
    return torch.from_numpy(onnx_session(output).run(None, {"images": images.numpy()})[0])


def _write_program(predictor: Predictor, card: ModelCard, run: TrialPaths, output: Path, images: Tensor) -> Tensor:
    """For `torch.export.load(FILE).module()`."""
    program = torch.export.export(predictor, (images[:2],), dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}})
    torch.export.save(program, output)
    with torch.inference_mode():
        return torch.export.load(output).module()(images)


def _write_folder(predictor: Predictor, card: ModelCard, run: TrialPaths, output: Path, images: Tensor) -> Tensor:
    """model.safetensors, model.json, a model.py that needs nothing of this package, and a model card for the Hugging Face hub."""
    output.mkdir()
    shutil.copyfile(run.weights, output / run.weights.name)
    write_card(TrialPaths(output), card.model_copy(update={"tta": predictor.tta}))
    title = f"{card.candidate.arch.one_line()}: {card.params:,} parameters, {len(card.classes)} classes."
    (output / "model.py").write_text(standalone_source(title, card.candidate.arch), encoding="utf-8")
    (output / "README.md").write_text(_model_card(card, predictor.tta), encoding="utf-8")
    module = runpy.run_path(str(output / "model.py"), run_name="nas_exported_model")  # as whoever receives the folder does
    with torch.inference_mode():
        return module["load"](output)(images)


def _model_card(card: ModelCard, tta: str) -> str:
    """With the accuracy that was measured by the test-time augmentation `tta`, if it was."""
    rows: list[dict[str, Any]] = []

    def add(images: str, n: int, accuracy: float, counted: float) -> None:
        rows.append({"images": images, "n": n, "accuracy": accuracy, "interval": accuracy_interval(accuracy, counted)})

    if tta == card.tta and card.test_accuracy_tta is not None and card.test_images is not None:
        add("official test set", card.test_images, card.test_accuracy_tta, card.test_images)
    if tta == card.tta and (held_out := card.held_out) is not None:
        add("held-out images", held_out.images, held_out.accuracy, held_out.counted)
    data = Path(card.data.folder).name if card.data.dataset == "folder" and card.data.folder else card.data.dataset
    classes = ", ".join(card.classes[:MOST_CLASSES]) + (", …" if len(card.classes) > MOST_CLASSES else "")
    name = f"{data}, {card.candidate.arch.one_line()}"
    template = TEMPLATES.get_template("README.jinja")
    return template.render(card=card, tta=tta, rows=rows, data=data, classes=classes, name=name)


def _write_bf16(
    predictor: Predictor,
    card: ModelCard,
    folder: Path,
    images: Tensor,
    expected: Tensor,
    test: ImageSet | None,
    progress: Progress,
) -> dict[str, Any]:
    """What `Exported` says of it."""
    weights = load_file(folder / "model.safetensors")
    halved = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    file = folder / "model.bf16.safetensors"
    file.write_bytes(save(halved))  # save_file's could be read by their owner alone
    accuracy = None if test is None else _accuracy(predictor, card, test, progress)
    predictor.model.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in halved.items()})
    with torch.inference_mode():
        difference = float((predictor(images) - expected).abs().max())
    return {
        "bf16_bytes": file.stat().st_size,
        "bf16_difference": difference,
        "accuracy": accuracy,
        "bf16_accuracy": None if test is None else _accuracy(predictor, card, test, progress),
    }


def _data_of(paths: StudyPaths | None, card: ModelCard, progress: Progress, note: Note) -> Dataset | None:
    """Where the study's data is; of a run outside any study where the data is that its card names."""
    if paths is not None:
        settings = read_settings(paths)
        return study_data(settings, settings.data, progress)
    try:
        dataset = load_dataset(card.data, progress)
    except DataError as error:
        note(f"accuracy was not measured: {error.message}")
        return None
    if dataset.fingerprint != card.data_fingerprint:
        note(f"accuracy was not measured: {card.data.folder or card.data.dataset} has other images or labels")
        return None
    return dataset


def _quantise(
    predictor: Predictor,
    paths: StudyPaths | None,
    card: ModelCard,
    original: Path,
    output: Path,
    keep: Sequence[str],
    progress: Progress,
    note: Note,
) -> Int8:
    """Ranges come from training images. It is judged by held-out images, by the official test set, or else by training images, of
    which only the changed predictions say something. Raises NasError."""
    data = _data_of(paths, card, progress, note)
    if data is None:
        raise DataError(
            f"--format {INT8} needs training images, to measure ranges on", hint="nas export --format onnx   needs none"
        )
    aside, training = None, np.arange(len(data.train))
    if card.held_out is not None:
        aside = select_data(data, card.data, DataSelection(hold_out=card.held_out.images / len(data.train))).hold_out
    if aside is not None:
        training = np.setdiff1d(training, aside)
    lots = np.random.default_rng(0).permutation(training)
    if aside is not None:
        judged, judged_on = data.train.only(aside), "held-out images"
    elif card.test_accuracy is not None and data.test is not None:
        judged, judged_on = data.test, "images of the official test set"
    else:
        judged, judged_on = data.train.only(np.sort(lots[-JUDGED_TRAINING_IMAGES:])), "training images"
    calibration = data.train.images[np.sort(lots[:CALIBRATION_IMAGES])]
    return quantise(original, output, weighted_layers(predictor.model), calibration, judged, judged_on, keep, progress)


def _accuracy(predictor: Predictor, card: ModelCard, test: ImageSet, progress: Progress) -> float:
    data = place(test, card.mean, card.std, torch.device("cpu"))
    return judge(predictor.model, data, test, predictor.tta, progress, "evaluating test images").accuracy


Write = Callable[[Predictor, ModelCard, TrialPaths, Path, Tensor], Tensor]
"""(predictor, card, run, output, images) → the logits (N, classes) that the written form gives for these images."""
FORMATS: dict[str, tuple[str, Write]] = {
    "weights": ("", _write_folder),
    "onnx": (".onnx", _write_onnx),
    INT8: (".int8.onnx", _write_onnx),
    "torch": (".pt2", _write_program),
}
"""The suffix of the file, and what writes it."""

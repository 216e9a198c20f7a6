"""An ONNX file in eight bits: weights and activations are quantised after the training, by ranges that are measured on training
images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from nas.budget.latency import median_seconds
from nas.budget.quantise import prepare_int8, write_int8
from nas.data.cache import Progress, silent
from nas.data.images import ImageSet, evenly
from nas.errors import ConfigError, choices_sentence

CALIBRATION_IMAGES = 500
LEAST_CALIBRATION_IMAGES = 32
BATCH = 50
PRODUCTS = ("Conv", "Gemm", "MatMul")  # operators with weights
SHARE_TO_BLAME = 0.01  # of changed predictions, from which layers are looked at one by one
MOST_BLAMED = 3
BLAMED_IMAGES = 1000


@dataclass(frozen=True)
class Int8:
    """An eight-bit file beside its float original; both run by onnxruntime on one thread of the CPU."""

    float_bytes: int
    images: int  # labelled ones that both have predicted
    judged_on: str  # which these are
    accuracy: float
    float_accuracy: float
    changed: int  # predictions that are not those of the float file
    milliseconds: float  # for one image
    float_milliseconds: float
    blamed: dict[str, int]
    """Where more than a hundredth of the predictions change: layers, and how many predictions of the first thousand images change
    if that layer alone is quantised; the worst first."""


def quantise(
    original: Path,
    output: Path,
    modules: Sequence[str],
    calibration: np.ndarray,
    judged: ImageSet,
    judged_on: str,
    keep: Sequence[str],
    progress: Progress,
) -> Int8:
    """Writes `output`, the ONNX file `original` in eight bits but for the layers `keep` and what lies within them. `modules`: the
    names of those with weights. `calibration`: uint8 (N, H, W, C), training images. Raises ConfigError for too few of them."""
    import onnx

    if len(calibration) < LEAST_CALIBRATION_IMAGES:
        raise ConfigError(
            f"--format onnx-int8 measures ranges on at least {LEAST_CALIBRATION_IMAGES} training images, but there are "
            f"{len(calibration)}",
            hint="nas export --format onnx   writes the network in float",
        )
    prepared = prepare_int8(original)
    graph = onnx.load(prepared).graph
    layers = _layers(graph, modules)
    kept = [node for node, layer in layers.items() if any(_within(layer, name) for name in keep)]

    def write(file: Path, excluded: list[str]) -> None:
        write_int8(prepared, file, _batches(calibration), excluded)
        if excluded:
            _shield(file, excluded)

    for file in progress([output], "quantising", 1):
        write(file, kept)
    pairs = [(onnx_session(original), "in float"), (onnx_session(output), "in int8")]
    theirs, ours = (_predict(session, judged.images, progress, f"predicting {what}") for session, what in pairs)
    changed = int((theirs != ours).sum())
    blamed: dict[str, int] = {}
    if changed > SHARE_TO_BLAME * len(judged):
        some = evenly(len(judged), BLAMED_IMAGES)
        alone = output.with_name("one-layer.onnx")
        quantised = [layer for layer in dict.fromkeys(layers.values()) if not any(_within(layer, name) for name in keep)]
        for layer in progress(quantised, "measuring each layer", len(quantised)):
            write(alone, [node.name for node in graph.node if layers.get(node.name) != layer])
            blamed[layer] = int((_predict(onnx_session(alone), judged.images[some]) != theirs[some]).sum())
    one = judged.images[:1]
    times = [1000 * median_seconds(lambda s=session: s.run(None, {"images": one})) for session, _ in pairs]  # type: ignore[misc]
    labels = np.asarray(judged.labels)
    return Int8(
        float_bytes=original.stat().st_size,
        images=len(judged),
        judged_on=judged_on,
        accuracy=float((ours == labels).mean()),
        float_accuracy=float((theirs == labels).mean()),
        changed=changed,
        milliseconds=times[1],
        float_milliseconds=times[0],
        blamed=dict(sorted(((k, v) for k, v in blamed.items() if v), key=lambda kv: -kv[1])[:MOST_BLAMED]),
    )


def weighted_layers(network: nn.Module) -> list[str]:
    """Names of the modules whose products are quantised."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def require_layers(keep: Sequence[str], layers: Sequence[str]) -> None:
    """Raises ConfigError for a name that is no layer and holds none."""
    for name in keep:
        if not any(_within(layer, name) for layer in layers):
            raise ConfigError(
                f"--keep-float {name!r} is not a layer with weights.{choices_sentence(name, layers)}",
                hint=f"--keep-float {layers[0]}",
            )


def _within(layer: str, name: str) -> bool:
    return layer == name or layer.startswith(f"{name}.")


def _layers(graph: Any, modules: Sequence[str]) -> dict[str, str]:
    """The module that each operator with weights belongs to, by the operator's name. The name of its weights tells it, also where
    BatchNorm has been multiplied into them."""
    found = {}
    for node in graph.node:
        owners = [module for module in modules for name in node.input[1:2] if f"model.{module}.weight" in f"{name}.weight"]
        if node.op_type in PRODUCTS and owners:
            found[node.name] = max(owners, key=len)
    return found


def _shield(file: Path, names: Sequence[str]) -> None:
    """When onnxruntime 1.32 loads a file, it quantises the weights of operators between a dequantised input and a quantised
    output, also of those that were left in float. So the input of each operator of these `names` passes a Clip without effect."""
    import onnx

    model = onnx.load(file)
    graph, lowest = model.graph, "lowest_float"
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.name in names and node.input[0] in dequantised:
            passed = f"{node.name}_input"
            graph.node.append(onnx.helper.make_node("Clip", [node.input[0], lowest], [passed], name=f"{node.name}_clip"))
            node.input[0] = passed
        graph.node.append(node)
    graph.initializer.append(onnx.helper.make_tensor(lowest, onnx.TensorProto.FLOAT, [], [float(np.finfo(np.float32).min)]))
    onnx.save(model, file)


def onnx_session(file: Path) -> Any:
    """Of onnxruntime, on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _predict(session: Any, images: np.ndarray, progress: Progress = silent, what: str = "") -> np.ndarray:
    """int64 (N,): the most likely class of each of `images`, uint8 (N, H, W, C)."""
    parts = _batches(images)
    return np.concatenate([session.run(None, {"images": part})[0].argmax(1) for part in progress(parts, what, len(parts))])


def _batches(images: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]

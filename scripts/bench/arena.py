"""Measures flash and RAM of networks in eight bits by real runtimes, beside what `nas` computes: the table of
scripts/bench/README.md, and with --out the file that tests/budget/test_int8.py reads.

    python -m venv ENV && ENV/bin/pip install . litert-torch==0.10.0 tflite-micro    (litert-torch 0.10 needs torch < 2.15)
    ENV/bin/python scripts/bench/arena.py --out tests/budget/arenas.jsonl

Weights and images are random: no arena depends on them.
"""

import argparse
import contextlib
import io
import json
import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import flatbuffers
import litert_torch
import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_quantizer import quantizer, recipe
from tflite_micro import runtime
from torch import nn

from nas.budget import count_flash, count_ram
from nas.config import ArchConfig, ImageShape
from nas.models import build_model


def network(*channels: int, blocks: int = 1, kernel: int = 3, **arch: Any) -> dict[str, Any]:
    stages = [{"blocks": blocks, "channels": width, "kernel": kernel} for width in channels]
    return {"stages": stages, **arch}


DEEP = {"block": "separable", "blocks": 2}
NETWORKS: dict[str, tuple[int, int, dict[str, Any]]] = {  # size and channels of its images, and the network
    "basic": (32, 3, network(16, 32, 64)),
    "basic, wide": (32, 3, network(64, 128)),
    "basic, deeper": (32, 3, network(24, 32, 48, blocks=2)),
    "basic, maxpool": (32, 3, network(16, 32, 64, downsample="maxpool")),
    "basic, avgpool": (32, 3, network(16, 32, 64, downsample="avgpool")),
    "basic, transition": (32, 3, network(16, 32, 64, downsample="transition")),
    "basic, squeeze and excitation": (32, 3, network(16, 32, 64, se_reduction=4)),
    "basic, SiLU": (32, 3, network(16, 32, 64, activation="silu")),
    "basic, whitening stem": (32, 3, network(16, 32, stem={"type": "whitening"})),
    "bottleneck": (32, 3, network(64, 128, block="bottleneck")),
    "plain": (32, 3, network(32, 64, 64, block="plain")),
    "preact": (32, 3, network(16, 32, 64, block="preact", blocks=2)),
    "separable": (32, 3, network(16, 32, 64, block="separable")),
    "separable, 5×5": (32, 3, network(24, 48, 96, kernel=5, **DEEP)),
    "separable, strided stem": (32, 3, network(32, 64, 128, stem={"stride": 2}, **DEEP)),
    "separable, squeeze and excitation": (32, 3, network(24, 48, se_reduction=8, **DEEP)),
    "separable, 96×96": (96, 3, network(16, 32, 64, 96, block="separable", stem={"stride": 2})),
    "separable, 96×96, stem that pools": (96, 3, network(16, 32, 64, block="separable", stem={"stride": 2, "pool": "max"})),
    "separable, 28×28 gray": (28, 1, network(16, 24, 48, block="separable", stem={"kernel": 5})),
    "separable, 8×8 gray": (8, 1, network(12, 24, block="separable")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(NETWORKS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = []
    print("| network | file | computed | ratio | arena | computed | ratio | LiteRT's arena, reference | builtin |")
    print("|---|" + "---:|" * 8, flush=True)
    for name in options.only:
        size, channels, described = NETWORKS[name]
        arch, shape = ArchConfig.model_validate(described), ImageShape(channels=channels, size=size, classes=10)
        with tempfile.NamedTemporaryFile(suffix=".tflite") as file, contextlib.redirect_stdout(io.StringIO()):
            file.write(convert(arch, shape))
            file.flush()
            arena, bytes_ = micro_arena(file.name), os.path.getsize(file.name)
            kinds = (OpResolverType.BUILTIN_REF, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
            reference, builtin = (litert_arena(file.name, kind) for kind in kinds)
        flash, ram = count_flash(arch, shape), count_ram(arch, shape)
        parts = [f"{bytes_:,}", f"{flash:,}", f"{flash / bytes_:.2f}", f"{arena:,}", f"{ram:,}", f"{ram / arena:.2f}"]
        print("| " + " | ".join([name, *parts, f"{reference:,}", f"{builtin:,}"]) + " |", flush=True)
        lines.append(
            json.dumps({"network": name, "size": size, "channels": channels, "arch": described, "file": bytes_, "arena": arena})
        )
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


def convert(arch: ArchConfig, shape: ImageShape) -> bytes:
    """A file in eight bits, weights and activations, by litert-torch and ai-edge-quantizer."""
    torch.manual_seed(0)
    model = build_model(arch, shape).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # at their start they add nothing, and would be left out
            nn.init.uniform_(module.bias)
    image = torch.randn(1, shape.size, shape.size, shape.channels)
    rng = np.random.default_rng(0)
    images = [{"args_0": rng.normal(size=tuple(image.shape)).astype(np.float32)} for _ in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        litert_torch.convert(litert_torch.to_channel_last_io(model, args=[0]), (image,)).export(f"{folder}/float.tflite")
        made = quantizer.Quantizer(f"{folder}/float.tflite", recipe.static_wi8_ai8())
        content = bytes(made.quantize(made.calibrate({"serving_default": images})).quantized_model)
    # ai-edge-quantizer 0.10 puts weights of larger networks behind the flatbuffer, where TensorFlow Lite Micro does not look.
    tree = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in tree.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    builder = flatbuffers.Builder(len(content))
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def micro_arena(file: str) -> int:
    """Bytes that TensorFlow Lite Micro takes, as it prints them."""
    with tempfile.TemporaryFile() as printed:
        before = os.dup(2)
        os.dup2(printed.fileno(), 2)
        try:
            runtime.Interpreter.from_file(file, arena_size=30_000_000).print_allocations()
        finally:
            os.dup2(before, 2)
        printed.seek(0)
        return int(re.findall(r"Arena allocation total (\d+)", printed.read().decode())[0])


def litert_arena(file: str, kind: Any) -> int:
    """Bytes between the first and the last of the activations and buffers, without XNNPACK."""
    interpreter = Interpreter(file, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    (image,) = (one["index"] for one in interpreter.get_input_details())
    made = {image, *(int(i) for operator in interpreter._get_ops_details() for i in operator["outputs"])}
    places = []
    for one in interpreter.get_tensor_details():
        if one["index"] in made or one["name"] == "":  # buffers of kernels have no name
            with contextlib.suppress(ValueError):  # nothing was allocated for it
                array = interpreter.tensor(one["index"])()
                start = array.__array_interface__["data"][0]
                places.append((start, start + array.nbytes))
    return max(end for _, end in places) - min(start for start, _ in places)


if __name__ == "__main__":
    main()

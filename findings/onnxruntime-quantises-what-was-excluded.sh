#!/usr/bin/env bash
# onnxruntime 1.32.0 with onnx 1.23.2: a convolution that quantize_static left in float is quantised when the file is loaded.
#
# nodes_to_exclude keeps the weights of the second of three convolutions in float32, and the file has them so. Its input comes from a
# DequantizeLinear and its output goes into a QuantizeLinear, since its neighbours are quantised. With the default optimisation a session
# turns it into a QLinearConv all the same, with weights that it quantises itself, and says nothing: whoever excluded a layer because it
# costs accuracy runs it in eight bits. At the lowest level of optimisation (ORT_DISABLE_ALL) it stays in float.
#
# Output on 2026-11-29:
#   in the file                       weights of c1 float
#   session, default optimisation     QLinearConv 3, Conv 0
#   session, ORT_DISABLE_ALL          QLinearConv 0, Conv 3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q onnxruntime==1.32.0 onnx==1.23.2 numpy sympy
cat > quantise.py <<'PYTHON'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

logging.disable(logging.WARNING)
lots = np.random.default_rng(0)
nodes, weights = [], []
for i in range(3):
    weights.append(numpy_helper.from_array(lots.normal(size=(8, 8, 3, 3)).astype(np.float32) / 8, f"w{i}"))
    nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], name=f"c{i}", pads=[1, 1, 1, 1]))
shape = ["batch", 8, 16, 16]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x0", "x3")]
model = helper.make_model(
    helper.make_graph(nodes, "three", ends[:1], ends[1:], weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
)
onnx.save(model, "float.onnx")


class Images:
    def __init__(self):
        self.left = iter([{"x0": lots.normal(size=(4, 8, 16, 16)).astype(np.float32)} for _ in range(4)])

    def get_next(self):
        return next(self.left, None)


quantize_static(
    "float.onnx",
    "int8.onnx",
    Images(),
    quant_format=QuantFormat.QDQ,
    per_channel=True,
    activation_type=QuantType.QUInt8,
    weight_type=QuantType.QInt8,
    nodes_to_exclude=["c1"],
)
kind = {t.name: t.data_type for t in onnx.load("int8.onnx").graph.initializer}.get("w1")
print(f"{'in the file':<33} weights of c1 {'float' if kind == TensorProto.FLOAT else kind}")


def operators(level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = "optimised.onnx"
    options.log_severity_level = 3
    onnxruntime.InferenceSession("int8.onnx", options, providers=["CPUExecutionProvider"])
    found = [node.op_type for node in onnx.load("optimised.onnx").graph.node]
    return found.count("QLinearConv"), found.count("Conv")


levels = onnxruntime.GraphOptimizationLevel
default, none = operators(levels.ORT_ENABLE_ALL), operators(levels.ORT_DISABLE_ALL)
print(f"{'session, default optimisation':<33} QLinearConv {default[0]}, Conv {default[1]}")
print(f"{'session, ORT_DISABLE_ALL':<33} QLinearConv {none[0]}, Conv {none[1]}")
assert kind == TensorProto.FLOAT and default == (3, 0) and none == (0, 3)
PYTHON
env/bin/python quantise.py

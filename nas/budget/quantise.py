"""ONNX files in eight bits, by onnxruntime's static quantisation: for the latency of a network on its device, and for export."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np


def prepare_int8(original: Path) -> Path:
    """Writes the ONNX file that `write_int8` takes, beside `original`: with BatchNorm folded, and with shapes."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = original.with_name("prepared.onnx")
    quant_pre_process(str(original), str(prepared), skip_symbolic_shape=True)
    return prepared


def write_int8(prepared: Path, output: Path, batches: Iterable[np.ndarray], excluded: Sequence[str] = ()) -> None:
    """Static quantisation in the QDQ form of all operators except `excluded`. Weights are signed, with one scale for each
    channel. Activations are unsigned, because onnxruntime 1.32 leaves half of the convolutions in float if they are signed. Their
    ranges are measured on `batches` of the input `images`."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    logging.getLogger().disabled, before = True, logging.getLogger().disabled  # it recommends steps that were taken
    try:
        quantize_static(
            str(prepared),
            str(output),
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=list(excluded),
        )
    finally:
        logging.getLogger().disabled = before


class _Reader:
    """Batches of images, as onnxruntime asks for them."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}

#!/usr/bin/env bash
# torch 2.14.1 (oneDNN 3.12.0) on a CPU with avx512_bf16: under autocast to bfloat16, training a strided depthwise convolution takes
# many times as long as in float32.
#
# torch.autocast("cpu", torch.bfloat16) speeds up the depthwise convolutions with 3×3 and stride 1. With stride 2, or with 5×5, the
# backward pass is slower than in float32. A network of depthwise blocks trains faster if those layers stay in float32.
#
# Output on 2026-11-29 (AMD EPYC with avx512_bf16, one thread, milliseconds of a forward and a backward pass, batch 128, 16×16):
#   32 channels, 3×3, stride 1: float32    4.7, bfloat16    4.0 (0.9 times as long)
#   32 channels, 5×5, stride 1: float32   11.4, bfloat16   15.7 (1.4 times as long)
#   32 channels, 3×3, stride 2: float32    2.5, bfloat16   22.0 (8.9 times as long)
#   32 channels, 5×5, stride 2: float32    4.0, bfloat16   40.0 (10.0 times as long)
#   64 channels, 3×3, stride 1: float32    9.8, bfloat16   10.5 (1.1 times as long)
#   64 channels, 5×5, stride 1: float32   22.5, bfloat16   27.5 (1.2 times as long)
#   64 channels, 3×3, stride 2: float32    3.4, bfloat16   41.8 (12.2 times as long)
#   64 channels, 5×5, stride 2: float32    7.6, bfloat16   80.9 (10.7 times as long)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q torch==2.14.1 numpy
cat > depthwise.py <<'PYTHON'
import time

import torch

torch.set_num_threads(1)


def milliseconds(channels, kernel, stride, bfloat16):
    layer = torch.nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    layer = layer.to(memory_format=torch.channels_last)
    images = torch.randn(128, channels, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    times = []
    for _ in range(15):
        begin = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            made = layer(images)
        made.sum().backward()
        times.append(1000 * (time.process_time() - begin))
    return sorted(times)[len(times) // 2]


slower = {}
for channels in 32, 64:
    for kernel, stride in (3, 1), (5, 1), (3, 2), (5, 2):
        whole, half = milliseconds(channels, kernel, stride, False), milliseconds(channels, kernel, stride, True)
        slower[channels, kernel, stride] = half / whole
        ratio = f"bfloat16 {half:6.1f} ({half / whole:.1f} times as long)"
        print(f"{channels} channels, {kernel}×{kernel}, stride {stride}: float32 {whole:6.1f}, {ratio}")
assert all(ratio > 2 for (_, _, stride), ratio in slower.items() if stride == 2)
PYTHON
env/bin/python depthwise.py

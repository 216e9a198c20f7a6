"""How the latency of a convolution goes by its channels with onnxruntime, whose layout on x86-64 has blocks of 16.

python scripts/bench/widths.py --json widths.json
"""

import argparse
import json
import platform
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import onnxruntime
import torch
from common import machine, progress, spread, table

from nas.budget.latency import RUNTIMES, median_seconds
from nas.config import ArchConfig, LatencyConfig
from nas.space.space_file import CIFAR10


def network(width: int) -> ArchConfig:
    """Three blocks of 3×3 convolutions, all of that many channels."""
    return ArchConfig.model_validate({"stages": [{"blocks": 3, "channels": width}], "block": "plain"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="48,60,62,63,64,65,68,72,76,80", help="channels (default: %(default)s)")
    parser.add_argument("--to", type=int, default=64, help="width to which all are compared (default: 64)")
    parser.add_argument("--rounds", type=int, default=9, help="in which each width is timed once (default: 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    latency = LatencyConfig(max_ms=1, runtime="onnxruntime")
    widths = sorted({options.to, *map(int, options.widths.split(","))})
    ms: dict[int, list[float]] = {width: [] for width in widths}
    with ExitStack() as sessions:
        runs = {width: sessions.enter_context(RUNTIMES["onnxruntime"](network(width), CIFAR10, latency)) for width in widths}
        for number in range(options.rounds):  # in turns, so that what else runs here slows all of them
            progress(f"round {number + 1} of {options.rounds}")
            for width, run in runs.items():
                ms[width].append(1000 * median_seconds(run))
    ratios = {width: [one / base for one, base in zip(ms[width], ms[options.to], strict=True)] for width in widths}
    rows = [[str(width), f"{median(ms[width]):.2f}", spread(ratios[width], 2)] for width in widths]
    print(f"{latency.setting()}, images of 3×32×32, {options.rounds} rounds, onnxruntime {onnxruntime.__version__}.\n")
    print(table(["channels", "ms", f"× {options.to} channels"], rows))
    if options.json is not None:
        where = machine(torch.device("cpu")) | {"onnxruntime": onnxruntime.__version__, "system": platform.platform()}
        options.json.write_text(json.dumps({"machine": where, "ms": ms, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()

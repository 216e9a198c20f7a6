"""How fast each augmentation is by itself: images/s, on one device, in batches of images that are already there.

python scripts/bench/augment.py --threads 1 --json augment.json
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import in_words, machine, milliseconds, progress, table
from torch import Tensor

from nas.config import AugmentConfig
from nas.data.augment import EXAMPLES, Draw, augment
from nas.data.augment.mix import mix
from nas.device import pick_device, wait_for

CLASSES = 10


def some_images(n: int, channels: int, size: int, device: torch.device) -> Tensor:
    """uint8 (N, C, H, W) in memory as from the loader: shapes with noise, since branches cost most on pure noise."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.rand(n, channels, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(shapes, size=(size, size), mode="bilinear", align_corners=False)
    images = 230 * smooth + 25 * torch.rand(n, channels, size, size, generator=generator)
    return images.to(torch.uint8).to(device).contiguous(memory_format=torch.channels_last)


def work(config: AugmentConfig | None, images: Tensor) -> Callable[[int], Tensor]:
    """What is measured, as a function of the batch's seed; None is what every batch costs, its gathering and normalisation."""
    indices = torch.arange(len(images), device=images.device)
    labels = indices % CLASSES
    normalised = images.float()

    def run(seed: int) -> Tensor:
        if config is None:
            order = torch.randperm(len(images), device=images.device)
            return ((images[order].float() - 120) / 60).contiguous(memory_format=torch.channels_last)
        draw = Draw.seeded(seed, indices)
        if config.mix != "none":
            return mix(normalised, labels, CLASSES, config, draw)[0]
        return augment(images, config, draw)

    return run


def seconds_a_batch(run: Callable[[int], Tensor], device: torch.device, runs: int, batches: int) -> list[float]:
    """One mean for each run; the first, which warms up, is left out."""
    found = []
    for i in range(runs + 1):
        started = time.perf_counter()
        for j in range(batches):
            run(i * batches + j)
        wait_for(device)
        found.append((time.perf_counter() - started) / batches)
    return found[1:]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    device = pick_device(arguments.device)
    if device.type == "cpu":
        # Once memory of this size was freed, glibc keeps what is freed after it; otherwise most of the time goes into
        # fetching the same pages again and again. In a training, the network's activations see to that.
        torch.empty(30 * 2**20, dtype=torch.uint8)
    images = some_images(arguments.batch, arguments.channels, arguments.size, device)
    seconds = {}
    for label, config in {"(gather and normalise)": None, **EXAMPLES}.items():
        seconds[label] = seconds_a_batch(work(config, images), device, arguments.runs, arguments.batches)
        progress(f"{label}: {milliseconds(seconds[label], 2)} ms")
    return {
        "machine": machine(device) | {"threads": torch.get_num_threads()},
        "batch": [arguments.batch, arguments.channels, arguments.size, arguments.size],
        "batches_a_run": arguments.batches,
        "seconds": seconds,
    }


def as_table(result: dict[str, Any]) -> str:
    """Markdown."""
    rows = [
        [label, milliseconds(seconds, 2), f"{result['batch'][0] / median(seconds):,.0f}"]
        for label, seconds in result["seconds"].items()
    ]
    runs = len(next(iter(result["seconds"].values())))
    return (
        f"Batches of {' × '.join(map(str, result['batch']))}; {in_words(result['machine'])}; median (fastest–slowest) of {runs} "
        f"runs of {result['batches_a_run']} batches.\n\n{table(['augmentation', 'ms a batch', 'images/s'], rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, mps (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    parser.add_argument("--batch", type=int, default=256, help="images a batch (default: 256)")
    parser.add_argument("--channels", type=int, default=3, help="of an image (default: 3)")
    parser.add_argument("--size", type=int, default=32, help="height and width of an image (default: 32)")
    parser.add_argument("--runs", type=int, default=9, help="of which the median counts (default: 9)")
    parser.add_argument("--batches", type=int, default=10, help="a run (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = measure(arguments)
    print(as_table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

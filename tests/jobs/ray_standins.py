"""What actors run in tests in a worker's place. Imports next to nothing, since each is imported by a process of its own."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AT_IMPORT = os.environ.get("CUDA_VISIBLE_DEVICES")
"""The GPUs that Ray had given the process when this was imported."""


@dataclass(frozen=True)
class Plan:
    """Of a worker's plan, what the executor reads."""

    study: Path
    sharing: int = 1


def echo(channel: Any, plan: Any) -> None:
    """Says who it is, then whatever it hears; `end`, `raise`, `die`, `sleep` and `shout` are orders."""
    heavy = "torch" in sys.modules
    channel.send(("ready", {"pid": os.getpid(), "gpus": AT_IMPORT, "torch": heavy}))
    while True:
        message = channel.recv()
        if message == "end" or type(message).__name__ == "Shutdown":
            return
        if message == "raise":
            raise ValueError("out of luck\nand more")
        if message == "die":
            os._exit(7)
        if message == "sleep":
            while True:  # never listens, but for the end of the line
                time.sleep(0.1)
                channel.poll()
        if message == "shout":
            for number in range(500):
                channel.send(number)
            channel.send(bytes(5_000_000))
        channel.send(message)


def waste(channel: Any, plan: Any) -> None:
    """Has more memory than its node allows."""
    channel.send(("ready", {"pid": os.getpid()}))
    hoard = [bytearray(64 * 2**20) for _ in range(8)]
    while hoard:
        time.sleep(0.1)
        channel.poll()


def missing(channel: Any, plan: Any) -> None:
    import no_such_module  # noqa: F401

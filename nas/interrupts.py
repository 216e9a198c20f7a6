"""What Ctrl-C and SIGTERM mean to a command that can be suspended."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """A mark that a signal handler may leave, and that whoever works looks at now and then."""

    requested: bool = False

    def request(self) -> None:
        self.requested = True


@contextmanager
def suspended_by_signals(suspend: Callable[[], None]) -> Iterator[None]:
    """The first signal calls `suspend`, from the handler: it should do no more than leave a mark. A second one raises
    KeyboardInterrupt. Afterwards the signals mean what they meant before."""
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        suspend()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""What Ctrl-C and SIGTERM mean to a command that can be suspended, and what becomes of its processes if it is killed."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import FrameType

PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass
class Stop:
    """A mark that a signal handler may leave, and that whoever works looks at now and then."""

    requested: bool = False

    def request(self) -> None:
        self.requested = True


class StopOf(Stop):
    """Of a part of the work, which ends with the whole, and may end before it."""

    def __init__(self, whole: Stop) -> None:
        self.whole, self._own = whole, False

    @property
    def requested(self) -> bool:
        return self._own or self.whole.requested

    @requested.setter
    def requested(self, value: bool) -> None:
        self._own = value


@contextmanager
def signals_handled(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> Iterator[None]:
    """Within, `handler` receives SIGINT and SIGTERM; afterwards they mean what they meant before. Another thread than the main
    one may set no handlers, and gets no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def suspended_by_signals(suspend: Callable[[], None]) -> AbstractContextManager[None]:
    """The first signal calls `suspend`, from the handler: it should do no more than leave a mark. A second one raises
    KeyboardInterrupt."""
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        suspend()

    return signals_handled(on_signal)


def die_with(parent: int) -> None:
    """Ends this process where the one that started it is killed, by whatever; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that
            os._exit(1)

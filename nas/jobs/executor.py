"""Where workers run. An executor starts them and carries messages; it knows nothing of trials or studies."""

from abc import ABC, abstractmethod
from typing import Any

from nas.jobs.messages import FromWorker, ToWorker


class Executor(ABC):
    """Workers are known by numbers from 0; a number is given once, or again to who takes the place of one that died."""

    @property
    @abstractmethod
    def workers(self) -> list[int]:
        """Those that run or are being started; on a cluster they come and go."""

    @property
    def awaited(self) -> set[int]:
        """Those of `workers` that wait for room: for hours, perhaps, and nothing is heard of them meanwhile."""
        return set()

    def prepare(self) -> None:
        """May begin with what takes long and touches no study, so that `start` takes less; `start` or `close` follows."""
        return

    @abstractmethod
    def tell(self, **changes: Any) -> None:
        """What was not known before: changes every worker's plan; before `start`."""

    @abstractmethod
    def start(self) -> None:
        """Starts every worker and returns at once; each says Ready when it is."""

    @abstractmethod
    def send(self, worker: int, message: ToWorker) -> None:
        """Says nothing of a worker that is gone: its Died will be received."""

    @abstractmethod
    def receive(self, timeout: float) -> list[tuple[int, FromWorker]]:
        """What has arrived, waiting at most `timeout` seconds for the first message. A worker's Died is its last."""

    @abstractmethod
    def kill(self, worker: int) -> None:
        """Ends it by force; its Died will be received. For one that does not answer."""

    @abstractmethod
    def restart(self, worker: int) -> None:
        """Puts another in the place of one that died, as soon as there is room for it."""

    @abstractmethod
    def close(self, force: bool = False) -> None:
        """Ends every worker: those that do not heed a request within seconds, or with `force` all at once, by force."""

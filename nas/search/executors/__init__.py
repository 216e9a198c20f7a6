"""Where workers run. An executor starts them and carries messages; it knows nothing of trials or studies."""

from abc import ABC, abstractmethod

from nas.search.messages import FromWorker, ToWorker


class Executor(ABC):
    """Workers are known by numbers from 0."""

    @property
    @abstractmethod
    def workers(self) -> list[int]: ...

    @abstractmethod
    def start(self) -> None:
        """Starts every worker and returns at once; each says Ready when it is."""

    @abstractmethod
    def send(self, worker: int, message: ToWorker) -> None:
        """Says nothing of a worker that is gone: its Died will be received."""

    @abstractmethod
    def receive(self, timeout: float) -> list[tuple[int, FromWorker]]:
        """What has arrived, waiting at most `timeout` seconds for the first message."""

    @abstractmethod
    def restart(self, worker: int) -> None:
        """A new process in the place of one that died."""

    @abstractmethod
    def close(self) -> None:
        """Ends every worker, by force where asking does not help."""

"""When a worker that says nothing has to be taken for one that hangs."""

from dataclasses import dataclass, field

UNLEARNED_SECONDS = 1800.0
"""Allowed before anything was learned of how long workers are usually silent, and for starting: a cache may have to be built."""
LEAST_SECONDS = 120.0
FACTOR = 20.0
"""So many times the longest silence that was seen to end."""
MOST_AT_ONCE = 5.0
"""Seconds that may count between two looks: while this process itself was stopped, or waited for a database, it heard nobody."""


@dataclass
class Silence:
    """Silences of the workers that are expected to speak, in seconds in which somebody listened."""

    limit: float = field(default_factory=lambda: UNLEARNED_SECONDS)
    _silent: dict[int, float] = field(default_factory=dict)
    _starting: set[int] = field(default_factory=set)
    _longest: float = 0.0
    _leniency: float = 1.0

    def __contains__(self, worker: int) -> bool:
        return worker in self._silent

    def expect(self, worker: int, starting: bool = False) -> None:
        """It has something to do, and should be heard of before long; one that is starting within `UNLEARNED_SECONDS`."""
        self._silent[worker] = 0.0
        (self._starting.add if starting else self._starting.discard)(worker)

    def expect_nothing(self, worker: int) -> None:
        self._silent.pop(worker, None)
        self._starting.discard(worker)

    def heard(self, worker: int, in_training: bool) -> None:
        """From what is said in a training, `in_training`, the usual silence is learned."""
        if worker in self._silent:
            if in_training:
                self._longest = max(self._longest, self._silent[worker])
                self._learn()
            self._silent[worker] = 0.0

    def passed(self, seconds: float) -> None:
        for worker in self._silent:
            self._silent[worker] += min(seconds, MOST_AT_ONCE)

    def too_long(self) -> dict[int, float]:
        """The seconds that each worker which hangs has been silent."""
        limits = {worker: UNLEARNED_SECONDS if worker in self._starting else self.limit for worker in self._silent}
        return {worker: seconds for worker, seconds in self._silent.items() if seconds > limits[worker]}

    def judged(self, worker: int) -> None:
        """It is ended. The next one is given twice as long, in case this one was only slow."""
        if worker not in self._starting:
            self._leniency *= 2
            self._learn()
        self.expect_nothing(worker)

    def _learn(self) -> None:
        if self._longest:
            self.limit = self._leniency * max(LEAST_SECONDS, FACTOR * self._longest)

"""The default number of workers of a search on the CPU: the fastest, found by timing some steps when its study begins.

Threads of one network wait for each other after every layer; workers do not. With several workers, the order in which trainings
end decides what the sampler knows, so the same seed gives different studies. Therefore a search with a given seed gets one
worker.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from statistics import median
from time import monotonic

from nas.budget import Budget, count_macs
from nas.config import Candidate
from nas.cores import available_memory
from nas.jobs.local import LocalExecutor
from nas.jobs.messages import TimeSteps
from nas.space.feasibility import fitting_draws
from nas.space.space import Space
from nas.specs import SearchSpec
from nas.study.settings import StudySettings

LEAST_IMAGES = 2_000_000  # training images in all from which the measurement pays: 45 epochs of CIFAR-10
LEAST_SECONDS = 300.0  # of a --timeout
MOST = 8
MARGIN = 0.05  # by which fewer workers may be slower: they know more of each other's results, and need less memory
DRAWS = 11  # that fit; the one of middle size is timed
MOST_DRAWS = 200
ROUNDS, ROUND_SECONDS, SECONDS = 3, 0.6, 6.0  # rounds at most; for each number of workers in a round; until the last round begins
STEP_MACS, LEAST_BATCH = 4e9, 16  # forward, of a timed step: batches of large networks are made smaller


@dataclass(frozen=True)
class Choice:
    workers: int
    reason: str  # in words


def workers_of(stored: StudySettings | None) -> int:
    """On the CPU: of the study, or of a new one before it is measured."""
    return (stored and stored.workers) or 1


def choose_workers(
    request: SearchSpec, images: int, space: Space, budget: Budget, executor: LocalExecutor, note: Callable[[str], None]
) -> Choice | None:
    """For a new study with so many training images; `executor` has one worker. None if there is no choice, or nothing to gain."""
    threads = executor.plans[0].threads
    most = min(MOST, threads, request.trials)
    short = request.timeout is not None and request.timeout < LEAST_SECONDS
    asked = request.workers is not None or request.threads is not None
    if executor.plans[0].device != "cpu" or asked or most < 2:
        return None
    if short or request.trials * space.epochs * images < LEAST_IMAGES:
        return None
    if request.seed is not None:
        return Choice(1, "one because of --seed, so the search can be repeated exactly")
    network = middle_network(space, budget)
    if network is None:
        return None
    note("timing which number of workers is fastest, for some seconds; --workers N skips this")
    try:
        speeds = _time(executor, TimeSteps(network, budget.shape, threads, ROUND_SECONDS), most)
    except (EOFError, OSError):  # perhaps because memory ran out
        return Choice(1, "a test with two workers failed")
    told = ", ".join(f"{count} are {speed / speeds[1]:.2f} times as fast as 1" for count, speed in speeds.items() if count > 1)
    return Choice(fastest(speeds), f"measured: {told}" if told else "too little memory for 2")


def fastest(speeds: dict[int, float]) -> int:
    """The smallest number that is as fast as the fastest, except for `MARGIN`."""
    enough = (1 - MARGIN) * max(speeds.values())
    return min(workers for workers, speed in speeds.items() if speed >= enough)


def middle_network(space: Space, budget: Budget) -> Candidate | None:
    """The network of median size among some uniform draws that fit, with batches that take tenths of a second. None if none
    fits."""
    fitting = sorted(islice(fitting_draws(space, budget, MOST_DRAWS, seed=0), DRAWS), key=lambda one: one[1].params)
    if not fitting:
        return None
    network, _ = fitting[len(fitting) // 2]
    batch = min(network.train.batch_size, max(LEAST_BATCH, int(STEP_MACS / count_macs(network.arch, budget.shape))))
    return network.model_copy(update={"train": network.train.model_copy(update={"batch_size": batch})})


def _time(executor: LocalExecutor, order: TimeSteps, most: int) -> dict[int, float]:
    """Images per second by the number of workers, 1, 2, 4 and so on, which share the threads. The median over rounds in which
    each number has its turn, because other work on the machine varies."""
    memory = available_memory()
    peaks = [timed.peak_bytes for timed in executor.time_steps(replace(order, threads=1, seconds=0.0), 2)]
    room = most if memory is None else memory // (2 * max(peak or 1 for peak in peaks))
    counts = [1, *(count for count in (2, 4, 8) if count <= min(most, room))]
    speeds: dict[int, list[float]] = {count: [] for count in counts}
    until = monotonic() + SECONDS
    while len(speeds[1]) < ROUNDS and (not speeds[1] or monotonic() < until) and len(counts) > 1:
        for count in counts:
            timed = executor.time_steps(replace(order, threads=order.threads // count), count)
            speeds[count].append(sum(one.images_per_second for one in timed))
    return {count: median(rounds or [0.0]) for count, rounds in speeds.items()}

"""What a search and its driver, the process that is connected to Ray for it, say to each other: `Send`, `Kill`, `Replace` and
`Close` to the driver, and from it what follows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Order:
    """What the process is started for."""

    address: str
    gpus: float  # of each worker; as `cpus`
    cpus: float
    most: int | None
    run: bytes  # what each actor runs, a pickled function of a channel, which this process need not import
    title: str
    log: str  # the file that takes what Ray prints


@dataclass(frozen=True)
class Send:
    worker: int
    message: bytes


@dataclass(frozen=True)
class Kill:
    worker: int


@dataclass(frozen=True)
class Replace:
    """The worker that died may have a successor."""

    worker: int


@dataclass(frozen=True)
class Close:
    seconds: float  # in which the workers may end by themselves


@dataclass(frozen=True)
class Unreachable:
    reason: str


@dataclass(frozen=True)
class Room:
    """Sent first, and when it changes."""

    workers: int  # for how many there would be room if the cluster were empty
    nodes: tuple[tuple[float, float], ...]  # GPUs and CPUs of each


@dataclass(frozen=True)
class Placed:
    worker: int


@dataclass(frozen=True)
class Said:
    worker: int
    message: bytes


@dataclass(frozen=True)
class Gone:
    worker: int
    reason: str
    out_of_memory: bool = False


@dataclass(frozen=True)
class Lost:
    """The connection to the cluster."""

    reason: str

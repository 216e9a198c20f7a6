"""A training that takes each batch in smaller parts where the memory runs out."""

from collections.abc import Callable

import torch

from nas.errors import StudyError, one_line
from nas.files import is_disk_full
from nas.paths import TrialPaths
from nas.train.device import more_parts, out_of_memory, release_memory
from nas.train.loop import Status


def in_parts(
    attempt: Callable[[int], Status],
    batch: int,
    first: int,
    title: str,
    run: TrialPaths,
    device: torch.device,
    note: Callable[[str], None],
    hint: str,
) -> Status:
    """`attempt` trains with each batch, of so many images, in so many parts; `first` is how many at first.

    Raises StudyError where not even the smallest fit in memory, with that `hint`, or the disk is full.
    """
    parts: int | None = first
    while parts is not None:
        try:
            return attempt(parts)
        except Exception as error:
            where, reason = out_of_memory(error), one_line(error)
            if isinstance(error, OSError) and is_disk_full(error):
                raise StudyError(
                    f"{error.filename or run.folder} has no room on its disk, and the training has ended",
                    hint="make room; the same command goes on from the last checkpoint",
                ) from None
            if where is None:
                raise
        release_memory(device)
        parts = more_parts(batch, parts)
        if parts is not None:
            note(f"the memory of {where} ran out; again, in micro-batches of {batch // parts} images")
    raise StudyError(
        f"the memory of {where} does not suffice for {title}, even in the smallest micro-batches ({reason})", hint=hint
    )

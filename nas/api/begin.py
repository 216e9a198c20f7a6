"""`nas.search`, `nas.open_study`, `nas.studies`."""

import time

from nas.api.calls import plain_display, takes_options
from nas.api.study import Study
from nas.paths import existing_study, known_studies
from nas.specs import SearchSpec
from nas.specs.options import Given
from nas.study.run import run_search


@takes_options
def search(given: Given[SearchSpec], *, log: str | None = None, quiet: bool = False) -> Study:
    """`nas search`: draws networks, prunes those over budget before training, trains the rest with early pruning.

    The same call again goes on where it stopped, and on a finished study returns at once: `trials` counts the trained networks of
    all runs of a study. Workers are processes of their own, and a script needs no `if __name__ == "__main__"` for them.

    `log` names a tracker; `quiet` prints warnings and faults alone. Raises NasError, and KeyboardInterrupt once the search is
    suspended by Ctrl-C: the same call goes on.
    """
    spec, begun = given.build(), time.monotonic()
    with plain_display(quiet, log) as display:
        result = run_search(spec, display)
        in_time = spec.timeout is None or time.monotonic() - begun < spec.timeout
        if result.interrupted and in_time:
            raise KeyboardInterrupt(f"study {result.plan.paths.name!r} is suspended; the same call goes on")
        if result.exhausted:
            display.note("nothing new was left to draw: widen the ranges of the space")
    return Study(result.plan.paths)


def open_study(name: str | None = None) -> Study:
    """A study under `studies/`, or the one used last. Raises StudyError with the studies there are."""
    return Study(existing_study(name))


def studies() -> list[str]:
    """Names of the studies there are."""
    return known_studies()

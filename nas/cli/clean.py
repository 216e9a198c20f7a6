"""`nas clean`"""

from dataclasses import asdict
from typing import Annotated

import typer

from nas.cli.options import JsonOption
from nas.cli.output import print_json

HELP = """Show what takes room on the disk, and free what no result needs.

That is checkpoints of trainings that have ended, what a crash left half written, and decoded images of a folder that has changed
since. With --cache the other decoded images too, which are decoded again when they are needed.
"""
NEEDS = {
    "result": "results, kept",
    "unfinished": "to go on from, kept",
    "free": "needed by no result",
    "cache": "decoded again when needed",
}


def command(
    yes: Annotated[bool, typer.Option("--yes", help="Free it; without, it is only shown.")] = False,
    cache: Annotated[bool, typer.Option("--cache", help="Decoded images, too. No search may be running.")] = False,
    as_json: JsonOption = False,
) -> None:
    from nas.errors import StudyError
    from nas.report.machine import disk_use, free
    from nas.report.words import bytes_text

    items = disk_use()
    chosen = [item for item in items if item.need == "free" or (cache and item.need == "cache")]
    room = sum(item.bytes for item in chosen)
    if yes:
        try:
            freed = free(chosen)
        except OSError as error:
            raise StudyError(
                f"{error.filename} cannot be removed: {error.strerror}", hint="see whose it is; the rest is kept"
            ) from None
    if as_json:
        shown = [{**asdict(item), "paths": [str(path) for path in item.paths]} for item in items]
        print_json({"items": shown, "freed": freed if yes else 0})
        return
    for item in items:
        mark = "  ← freed" if yes and item in chosen else ""
        print(f"{bytes_text(item.bytes):>10s}  {item.what}  ({NEEDS[item.need]}){mark}")
    if yes:
        print(f"Freed {bytes_text(freed)}.")
    elif room:
        print(f"Next:  nas clean --yes{' --cache' if cache else ''}   frees {bytes_text(room)}")
    else:
        print("Nothing is left to free." if items else "There is nothing yet.")

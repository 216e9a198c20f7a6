"""What takes room on the disk: results, what only serves to go on, and decoded images; and freeing what no result needs."""

import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nas.data.folders import is_outdated
from nas.errors import NasError
from nas.paths import StudyPaths, cache_folder, known_studies, study_paths
from nas.study.finalists import sibling
from nas.study.storage import open_study

Need = Literal["result", "unfinished", "free", "cache"]
"""result: of a study. unfinished: a training goes on from it. free: nothing needs it. cache: made again when it is needed."""
ABANDONED_SECONDS = 24 * 3600.0  # after which what somebody had begun to write is given up


@dataclass(frozen=True)
class Item:
    what: str
    need: Need
    bytes: int
    paths: tuple[Path, ...]


def disk_use() -> list[Item]:
    """Of every study under the studies folder, and of the cache; studies that cannot be read count as results."""
    items = [item for name in known_studies() for item in _of_study(study_paths(name))]
    return [*items, *_of_cache(cache_folder())]


def _of_study(paths: StudyPaths) -> list[Item]:
    everything = size_of([paths.folder])
    unfinished, ended = _checkpoints(paths)
    unfinished += paths.retrained.glob("*/checkpoint.pt")
    unfinished += [*paths.ablations.glob("*/runs/*/checkpoint.pt"), *paths.baselines.glob("*/checkpoint.pt")]
    leftovers = [file for file in paths.folder.rglob("*.tmp") if _abandoned(file)]
    kept = size_of(unfinished), size_of([*ended, *leftovers])
    items = [Item(f"study {paths.name}: trials, networks, database", "result", everything - sum(kept), (paths.folder,))]
    if unfinished:
        items.append(
            Item(f"study {paths.name}: checkpoints of trainings that are not ended", "unfinished", kept[0], tuple(unfinished))
        )
    if ended or leftovers:
        what = f"study {paths.name}: checkpoints of trainings that have ended"
        items.append(Item(what, "free", kept[1], (*ended, *leftovers)))
    return items


def _checkpoints(paths: StudyPaths) -> tuple[list[Path], list[Path]]:
    """Of trainings that may go on, and of those that have ended. All may go on where the study cannot be read."""
    files = [*paths.trials.glob("*/checkpoint.pt"), *paths.finalists.trials.glob("*/checkpoint.pt")]
    if not files:
        return [], []
    try:
        study = open_study(paths)
        finals = sibling(study)
    except NasError:
        return files, []
    going_on = {
        folder.trial(trial.number).checkpoint
        for folder, one in ((paths, study), (paths.finalists, finals))
        if one is not None
        for trial in one.get_trials(deepcopy=False)
        if not trial.state.is_finished()
    }
    return [file for file in files if file in going_on], [file for file in files if file not in going_on]


def _of_cache(folder: Path) -> list[Item]:
    items = []
    need: Need
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if entry.name.startswith("."):
            if entry.is_dir() and _abandoned(entry):
                items.append(Item(f"cache: {entry.name}, begun and given up", "free", size_of([entry]), (entry,)))
        elif (entry / "meta.json").is_file():
            if is_outdated(entry):
                what, need = "decoded images of a folder that has changed since", "free"
            else:
                what, need = "decoded images", "cache"
            items.append(Item(f"cache: {entry.name}, {what}", need, size_of([entry]), (entry,)))
    return items


def _abandoned(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    except OSError:
        return False


def size_of(paths: Iterable[Path]) -> int:
    """Bytes of files and of all within folders; what cannot be read counts nothing."""
    total = 0
    for path in paths:
        for file in path.rglob("*") if path.is_dir() else (path,):
            with suppress(OSError):
                if file.is_file() and not file.is_symlink():
                    total += file.stat().st_size
    return total


def free(items: Iterable[Item]) -> int:
    """Removes them; what is gone already is none. Returns the bytes. Raises OSError where something cannot be removed."""
    freed = 0
    for item in items:
        assert item.need in ("free", "cache"), item
        for path in item.paths:
            size = size_of([path])
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            freed += size
    return freed

"""What lies where: the folder of each study, the places outside it, and on what kind of file system they are."""

import os
import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.errors import DataError, StudyError, choices_sentence


def studies_folder() -> Path:
    """`studies/` in the working folder, or what NAS_STUDIES says."""
    return Path(os.environ.get("NAS_STUDIES") or "studies")


def cache_folder() -> Path:
    """Decoded images: NAS_CACHE, else `nas` in the user's cache folder. Raises DataError for a user without a home."""
    if own := os.environ.get("NAS_CACHE"):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nas"
    except RuntimeError:
        raise DataError(
            "there is no folder for decoded images, because HOME is not set",
            hint="set a folder: export NAS_CACHE=FOLDER",
        ) from None


NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb", "smbfs", "smb2", "smb3", "lustre", "ceph", "afs", "gpfs", "fhgfs", "v9fs")
"""Several machines may write to them, whose memory SQLite cannot share."""


def file_system(path: Path) -> str | None:
    """Its kind, as `stat` names it; None where the system does not say."""
    if platform.system() != "Linux":  # stat's options differ elsewhere
        return None
    try:
        found = subprocess.run(["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


class _Inside:
    """What lies in the folder of its owner, under this name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, paths: Any, owner: type) -> Path:
        folder: Path = paths.folder
        return folder / self.name


@dataclass(frozen=True)
class StudyPaths:
    """One study's folder; nothing here creates or reads a file."""

    folder: Path

    space = _Inside("space.yaml")
    blocks = _Inside("blocks")  # Python files that the space names, as they were when the study began; absent without
    settings = _Inside("study.json")
    database = _Inside("study.db")
    storage_url = _Inside("storage.url")  # where the trials are kept instead of in `database`; absent without. No password
    lock = _Inside("study.lock")
    token = _Inside("study.token")  # names the coordinator that leads the study now; its workers may write to this folder
    latencies = _Inside("latencies.json")  # what was measured; absent where the budget does not limit the latency
    report = _Inside("report.html")
    retrained = _Inside("retrained")
    choice = _Inside("retrained/chosen.json")  # which of several retrained networks was chosen; absent where none were compared
    ablations = _Inside("ablations")
    baselines = _Inside("baselines")  # known networks, trained as one of the study is; none of them is ever handed over
    trials = _Inside("trials")

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def finalists(self) -> "StudyPaths":
        """Of their trainings; what else a study has is this one's."""
        return StudyPaths(self.folder / "finalists")

    def trial(self, number: int) -> "TrialPaths":
        return TrialPaths(self.trials / f"{number:04d}")


@dataclass(frozen=True)
class TrialPaths:
    """One training's folder, of a trial or of a run."""

    folder: Path

    candidate = _Inside("candidate.json")
    metrics = _Inside("metrics.jsonl")
    checkpoint = _Inside("checkpoint.pt")
    card = _Inside("model.json")  # of a finished run; written last
    weights = _Inside("model.safetensors")
    evaluation = _Inside("evaluation.npz")  # predictions of the official test set, or else of held-out images; or absent
    baseline = _Inside("baseline.json")  # of a known network alone: what makes it one that is never handed over
    begun = _Inside("begun.json")  # what a known network's training is, from its start
    diverged = _Inside("diverged.txt")  # why an ablation's or a known network's training did, which would again; or absent
    error = _Inside("error.txt")


def study_paths(name: str) -> StudyPaths:
    """Raises StudyError for a name that is no folder's name."""
    if not name or name in (".", "..") or set(name) & set('/\\:*?"<>|') or name.startswith("."):
        raise StudyError(f"the name of a study must be a folder name without separators or a leading dot, but is {name!r}")
    return StudyPaths(studies_folder() / name)


def known_studies() -> list[str]:
    return sorted(p.parent.name for p in studies_folder().glob("*/study.json"))


def existing_study(name: str | None) -> StudyPaths:
    """The named study, or the one used last. Raises StudyError with the studies there are."""
    known = known_studies()
    if name is None:
        name = _last_used() or (known[0] if len(known) == 1 else None)
        if name is None:
            what = f"Choices: {', '.join(known)}." if known else f"There is none under {studies_folder().absolute()}."
            raise StudyError(
                f"no study is named, and none was used here before. {what}",
                hint="nas search --space digits --dataset digits" if not known else "add --study NAME",
            )
    paths = study_paths(name)
    if name not in known:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.stat(paths.settings)  # raises where the folder may not be read, or none can have such a name
        raise StudyError(
            f"there is no study {name!r} under {studies_folder().absolute()}.{choices_sentence(name, known)}",
            hint="nas list shows the studies; nas search creates one",
        )
    return paths


def remember_study(paths: StudyPaths) -> None:
    """Makes this the study that commands take when none is named; not where the folder of studies cannot be written."""
    with suppress(OSError):
        (studies_folder() / ".last").write_text(paths.name + "\n", encoding="utf-8")


def _last_used() -> str | None:
    try:
        name = (studies_folder() / ".last").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name if name in known_studies() else None


def shipped_folder() -> Path:
    """`search_spaces/`: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


PRESET = "preset:"  # begins the name of a preset where other networks may be named, too
_SHIPPED = {"space": ".", "preset": "presets", "recipe": "recipes"}


def shipped_file(kind: str, name: str) -> Path:
    """Of a `space`, `preset` or `recipe`, whether it is there or not."""
    return shipped_folder() / _SHIPPED[kind] / f"{name}.yaml"


def shipped_names(kind: str) -> list[str]:
    return sorted(path.stem for path in (shipped_folder() / _SHIPPED[kind]).glob("*.yaml"))

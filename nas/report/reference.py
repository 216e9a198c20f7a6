"""Networks that others have reported on the images of a study: points to compare its own with."""

from dataclasses import dataclass
from pathlib import Path

from nas.budget.closed_form import closed_form_macs
from nas.paths import shipped_names
from nas.space.space_file import CIFAR10, load_preset
from nas.study.settings import StudySettings

CIFAR10_CLASSES = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}


@dataclass(frozen=True)
class Reference:
    name: str  # of the preset
    params: int
    macs: int
    accuracy: float
    measured_on: str


def reference_points(settings: StudySettings) -> list[Reference]:
    """Empty for images on which nobody has reported."""
    return _reported_on_cifar10() if _is_cifar10(settings) else []


def _is_cifar10(settings: StudySettings) -> bool:
    """By its name, or as a folder of those classes at that size."""
    if settings.data.dataset == "cifar10":
        return True
    if settings.shape != CIFAR10 or settings.data.folder is None:
        return False
    folder = Path(settings.data.folder)
    found = [path for path in (folder / "train", folder) if path.is_dir()]
    return bool(found) and {path.name for path in found[0].iterdir() if path.is_dir()} >= CIFAR10_CLASSES


def _reported_on_cifar10() -> list[Reference]:
    points = []
    for name in shipped_names("preset"):
        preset = load_preset(name)
        reported = preset.reported
        macs = closed_form_macs(preset.candidate.arch, CIFAR10)
        points.append(Reference(name, reported.params, macs, reported.accuracy, reported.measured_on))
    return points

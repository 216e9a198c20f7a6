"""What is asked of a retraining, as it was typed."""

from dataclasses import dataclass

from nas.data.splits import DataSelection
from nas.paths import StudyPaths
from nas.space.recipes import SEARCHED


@dataclass(frozen=True)
class RetrainRequest:
    paths: StudyPaths
    which: str = "best"
    """`best`, a trial's number, or `preset:NAME`."""
    epochs: int | None = None
    recipe: str = SEARCHED
    """A name, or a file's path."""
    seconds: float | None = None
    """In place of epochs: as many as take so long, with the evaluation at the end."""
    seed: int = 0
    include_test_labels: bool = False
    train_subset: int | None = None
    """Train on so many of the images only, stratified: for trying things out."""
    hold_out: float = 0.0
    """Share of the training images that judges instead of training."""
    data_folder: str | None = None
    """Where the data lies now, if it has moved since the search; …"""
    labels: str | None = None
    """… and likewise its table of labels, where that did not move along."""
    device: str = "auto"
    gpus: int | None = None
    """That train it together, each a part of every batch; on the CPU processes."""
    compiled: bool | None = None
    """By torch.compile; None compiles on CUDA, where one process trains."""

    @property
    def selection(self) -> DataSelection:
        return DataSelection(self.include_test_labels, self.train_subset, self.hold_out)

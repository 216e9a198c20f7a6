"""`RunRecord`: everything that is known of a retrained network without loading it, read once from its files for reports."""

from dataclasses import dataclass

from nas.paths import TrialPaths
from nas.runs.card import ModelCard, read_card
from nas.runs.evaluation import Evaluation, read_evaluation
from nas.train.checkpoint import EpochMetrics, read_curve


@dataclass(frozen=True)
class RunRecord:
    name: str
    card: ModelCard
    curve: list[EpochMetrics]
    evaluation: Evaluation | None  # on labelled images that it was not trained on; None if there were none

    @property
    def judged_on(self) -> str:
        """The images of `evaluation`."""
        return "held-out images" if self.card.test_images is None else "test images"

    @property
    def test_accuracy(self) -> float | None:
        """With the test-time augmentation of `nas submit`, if it has any."""
        averaged = self.card.test_accuracy_tta
        return self.card.test_accuracy if averaged is None else averaged

    @property
    def test_score(self) -> float | None:
        """The same by the study's metric; None also for a run of an older version."""
        return self.test_accuracy if self.card.metric == "accuracy" else self.card.test_score


def read_run(run: TrialPaths) -> RunRecord:
    """Raises NasError if a file is damaged."""
    return RunRecord(run.folder.name, read_card(run), read_curve(run.metrics), read_evaluation(run))

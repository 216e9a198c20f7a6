"""What a trained baseline is kept as.

studies/<study>/baselines/<network>-like-<network of the study>-<recipe>-<E>-epochs-seed-N/
    begun.json           a `Definition`, from its start
    metrics.jsonl        a line an epoch
    model.safetensors    the averaged weights
    evaluation.npz       what it says of the official test set, where there is one
    baseline.json        a `BaselineCard`, written last: what has one has ended. In place of it `diverged.txt`, with the reason
"""

from nas.baseline.order import Definition
from nas.config import DataConfig, ImageShape, MetricName
from nas.files import sha256_of, write_whole
from nas.paths import StudyPaths, TrialPaths
from nas.retrain.card import HeldOut, weights_file
from nas.retrain.evaluation import evaluation_file
from nas.search.settings import Environment


class BaselineCard(Definition):
    """A trained network that is not ours, without its weights. Its figures mean what they mean in a `ModelCard`."""

    study: str
    shape: ImageShape
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data: DataConfig
    data_fingerprint: str
    train_images: int
    metric: MetricName
    held_out: HeldOut | None
    test_images: int | None = None
    test_accuracy: float | None = None
    test_accuracy_tta: float | None = None
    test_balanced_accuracy: float | None = None
    test_macro_f1: float | None = None
    test_shifted_accuracy: float | None = None
    seconds: float
    device: str
    precision: str
    environment: Environment
    weights_sha256: str = ""
    evaluation_sha256: str | None = None

    @property
    def test_score(self) -> float | None:
        """On the official test set, by `metric`."""
        by_metric = {"accuracy": self.test_accuracy_tta, "balanced_accuracy": self.test_balanced_accuracy}
        return by_metric.get(self.metric, self.test_macro_f1)


def write_baseline(run: TrialPaths, card: BaselineCard) -> BaselineCard:
    """With the hashes of the files beside it. Raises OSError."""
    evaluation = evaluation_file(run)
    hashes = {
        "weights_sha256": sha256_of(weights_file(run)),
        "evaluation_sha256": sha256_of(evaluation) if evaluation.is_file() else None,
    }
    card = card.model_copy(update=hashes)
    write_whole(run.baseline, (card.to_json() + "\n").encode())
    return card


def read_baseline(run: TrialPaths) -> BaselineCard:
    """Raises ConfigError where the file is damaged."""
    return BaselineCard.from_json(run.baseline.read_bytes(), source=str(run.baseline))


def finished_baselines(paths: StudyPaths) -> list[TrialPaths]:
    """Oldest first."""
    files = sorted(paths.baselines.glob("*/baseline.json"), key=lambda file: file.stat().st_mtime)
    return [TrialPaths(file.parent) for file in files]

"""What a trained baseline is kept as.

studies/<study>/baselines/<network>-like-<network of the study>-<recipe>-<E>-epochs-seed-N/
    begun.json           a `Definition`, from its start
    metrics.jsonl        a line an epoch
    model.safetensors    the averaged weights
    evaluation.npz       what it says of the official test set, where there is one
    baseline.json        a `BaselineCard`, written last: what has one has ended. In place of it `diverged.txt`, with the reason
"""

from nas.files import sha256_of, write_whole
from nas.paths import StudyPaths, TrialPaths
from nas.runs.baseline.order import Definition
from nas.runs.card import TrainedCard


class BaselineCard(TrainedCard, Definition):
    """A trained network that is not ours, without its weights."""

    weights_sha256: str = ""
    evaluation_sha256: str | None = None

    @property
    def params(self) -> int:
        return self.network.params

    @property
    def macs(self) -> int | None:
        return self.network.macs


def write_baseline(run: TrialPaths, card: BaselineCard) -> BaselineCard:
    """With the hashes of the files beside it. Raises OSError."""
    evaluation = run.evaluation
    hashes = {
        "weights_sha256": sha256_of(run.weights),
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

"""What the ledger says of a retrained run and of a submission; and the file beside a run that says it of its submissions.

studies/<study>/retrained/<run>/
    submissions.jsonl    a `SubmissionEntry` a line, oldest first
"""

import os
from pathlib import Path

from nas.config import Frozen, MetricName
from nas.errors import NasError
from nas.paths import TrialPaths


class RunEntry(Frozen):
    """A retrained run. Accuracies are in [0, 1], hashes SHA-256 in hexadecimal."""

    name: str
    subject: str  # `trial 7`, or `preset:resnet-2322`
    candidate: str  # its digest
    architecture: str
    recipe: str
    seed: int
    epochs: int
    params: int
    macs: int
    train_images: int
    includes_test_labels: bool
    search_accuracy: float | None  # by `metric`
    metric: MetricName = "accuracy"  # what the study judges networks by
    held_out_images: int | None = None
    held_out_accuracy: float | None = None
    held_out_shifted_accuracy: float | None = None  # under a simulated shift, as the one below
    held_out_score: float | None = None  # by `metric`, where that is not accuracy
    held_out_shifted_score: float | None = None
    test_images: int | None
    test_accuracy: float | None
    test_accuracy_tta: float | None
    test_balanced_accuracy: float | None = None
    test_macro_f1: float | None = None
    test_shifted_accuracy: float | None = None
    tta: str
    seconds: float
    device: str
    precision: str
    data_fingerprint: str
    commit: str | None
    created: str  # local time with its zone, ISO 8601
    weights_sha256: str
    card_sha256: str  # of the content of model.json, see `nas.runs.card.content_hash`.
    evaluation_sha256: str | None


class SubmissionEntry(Frozen):
    """A CSV that a run has predicted."""

    id: str  # 32 random hexadecimal digits
    run: str
    output: str  # relative to the study's folder where it lies in there
    test: str  # what was predicted, in words
    test_sha256: str  # of the images' bytes
    images: int
    tta: str
    adapted: bool  # whether BatchNorm's statistics were taken from the test set
    commit: str | None
    created: str
    weights_sha256: str  # of the weights that predicted it
    csv_sha256: str


def submissions_file(run: TrialPaths) -> Path:
    return run.folder / "submissions.jsonl"


def append_submission(run: TrialPaths, entry: SubmissionEntry) -> None:
    """Raises OSError."""
    line = (entry.model_dump_json() + "\n").encode()
    # Of two processes that write at once, each writes its line whole.
    file = os.open(submissions_file(run), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, line)
        os.fsync(file)
    finally:
        os.close(file)


def kept_submissions(run: TrialPaths) -> tuple[list[SubmissionEntry], list[str]]:
    """Of a run, and a sentence for each line that cannot be read."""
    file = submissions_file(run)
    found, broken = [], []
    for number, line in enumerate(file.read_text().splitlines() if file.is_file() else (), 1):
        try:
            found.append(SubmissionEntry.from_json(line, source=f"{file}, line {number}"))
        except NasError as error:
            broken.append(error.message)
    return found, broken

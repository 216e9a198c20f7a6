"""What a network is judged by, by name."""

from typing import Literal

MetricName = Literal["accuracy", "balanced_accuracy", "macro_f1"]
METRIC_WORDS: dict[MetricName, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
}

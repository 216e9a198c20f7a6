"""How far the trainings of a command together are."""

import time
from collections.abc import Mapping

from nas.display.terminal import TerminalDisplay
from nas.paths import TrialPaths
from nas.report.words import time_text
from nas.train.checkpoint import EpochMetrics, read_curve


class Together:
    """Shows each epoch of several trainings, and how long all that is left will take."""

    def __init__(self, display: TerminalDisplay) -> None:
        self.display = display

    def begin(self, pending: Mapping[TrialPaths, int]) -> None:
        """With the epochs of each run; those that it has had already count."""
        self.epochs = {run.folder.name: epochs for run, epochs in pending.items()}
        self.done = {run.folder.name: len(read_curve(run.metrics)) for run in pending}
        self.before, self.began = sum(self.done.values()), time.monotonic()

    def epoch(self, run: TrialPaths, metrics: EpochMetrics) -> None:
        name = run.folder.name
        self.done[name] = max(metrics.epoch, self.done[name])
        done = sum(self.done.values())
        text = f"training accuracy {metrics.train_accuracy:.2%}  {metrics.images_per_second:,.0f} images/s"
        if done > self.before:
            rate = (time.monotonic() - self.began) / (done - self.before)
            text += f"  {time_text(rate * (sum(self.epochs.values()) - done))} left of all"
        self.display.training(metrics.epoch, self.epochs[name], text, name)

"""How a running command looks: a panel that is redrawn in a terminal, a line for each finished trial elsewhere, little if asked.

Everything goes to standard error; standard output belongs to data.
"""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, closing

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.segment import Segment
from rich.table import Column
from rich.text import Text

from nas.config import METRIC_WORDS, Candidate
from nas.display.panel import left_text, panel, running_text, seconds_left
from nas.paths import StudyPaths
from nas.report.words import flop_text, number_text, row_text, time_text
from nas.runs.trackers import Tracker, make_tracker, require_tracker
from nas.study.finalists import Round
from nas.study.run import SearchDisplay, SearchPlan
from nas.study.source import Drawn, Progress
from nas.study.trials import TrialRecord
from nas.study.warm_start import Fitted
from nas.train.checkpoint import EpochMetrics

LINE_SECONDS = 30.0  # between two lines that say how far something is, where there is no terminal
FEW_SECONDS = 5.0  # what takes no longer than so has none

OBJECTIVES = {"accuracy": "{} under the budget", "front": "the Pareto front of {} against parameters"}


def start_text(fitted: Fitted) -> str:
    """What became of a candidate to begin with, and why."""
    because = "; ".join(fitted.reasons)
    if fitted.values is None:
        return f"left out  {fitted.start.origin}: {because}"
    if fitted.is_result:
        return f"reuses the result of {fitted.start.origin}"
    return f"starts with {fitted.start.origin}" + (f" (recipe: {because})" if because else "")


def round_text(chosen: Round) -> str:
    seeds = f"{chosen.seeds} seeds" if chosen.seeds > 1 else "one seed"
    epochs, cost = number_text(chosen.epochs, "epoch"), number_text(chosen.cost, "epoch")
    return f"the best {chosen.count} again, {epochs} with {seeds}: {cost}"


def finalists_plan(plan: SearchPlan) -> str:
    if plan.finalists is None:
        return "none"
    reserved = {time_text: plan.finalist_seconds, flop_text: plan.finalist_flop}
    if kept := [text(value) for text, value in reserved.items() if value is not None]:
        how_many = round_text(plan.finalists) if plan.finalists_given else "as many as fit"
        return f"{how_many}, in the last {' or '.join(kept)}"
    epochs = int(plan.settings.parameters["epochs"])
    expected = plan.pruner.expected_epochs(plan.goal)
    most = "at most " if expected is None else ""
    return f"{round_text(plan.finalists)} (the search: {most}about {plan.goal * (expected or epochs):.0f})"


def plan_lines(plan: SearchPlan) -> dict[str, str]:
    """What is announced before a search begins."""
    settings, data = plan.settings, plan.settings.data
    images = f"{settings.train_images:,} training images, {settings.validation_images:,} validation images"
    if data.subset is not None:
        images += ", by --train-subset"
    if plan.skipped_images:
        images += f"; {plan.skipped_images:,} left out"
    where = f"{data.dataset}{f' in {data.folder}' if data.folder else ''}"
    if data.labels is not None:
        where += f" with the labels in {data.labels}"
    if plan.groups:
        images += f"; none of the {plan.groups:,} groups is split"
    shape, metric = settings.shape, METRIC_WORDS[settings.study.metric]
    epochs = number_text(int(settings.parameters["epochs"]), "epoch")
    if settings.study.trial_compute is not None:
        epochs = f"{flop_text(settings.study.trial_compute)} in {epochs}"
    if settings.study.final_compute is not None:
        epochs = f"at most {epochs}, less for smaller networks, to rank for {flop_text(settings.study.final_compute)}"
    return {
        "study": str(plan.paths.folder),
        "space": f"{settings.space}, {settings.budget.describe()}",
        "data": f"{where}, {shape.channels}×{shape.size}×{shape.size}, {shape.classes} classes: {images}",
        "search": f"{settings.study.sampler.name}, for {OBJECTIVES[settings.study.objective].format(metric)}",
        "training": f"{epochs}; {settings.study.pruner.name} prunes {plan.pruner.describe()}",
        "finalists": finalists_plan(plan),
        "workers": plan.workers,
        "precision": plan.precision,
        "goal": f"{plan.goal} trained networks" + (f", of which {plan.trained} are done" if plan.trained else ""),
    }


def run_name(number: int, finalist: int | None, seed: int | None) -> str:
    """Of a training, for a tracker."""
    return f"trial-{number:04d}" if finalist is None else f"finalist-{finalist:04d}-seed-{seed}"


def printed_lines(name: str, text: str) -> list[str]:
    """What the code of a user's file printed, told apart from what nas prints."""
    return [f"{name} printed:", *(f"  | {line}" for line in text.splitlines())]


class Panel(Live):
    """A live panel that also takes away what a terminal wraps of it when it becomes narrower."""

    def __init__(self, console: Console, draw: Callable[[], RenderableType]) -> None:
        self._lengths: list[int] = []  # of the lines that stand on the terminal
        self._draw = draw
        super().__init__(console=console, get_renderable=self._drawn, refresh_per_second=4, transient=True)

    def _drawn(self) -> RenderableType:
        width = self.console.width
        if any(length > width for length in self._lengths):
            rows = sum(max(1, math.ceil(length / width)) for length in self._lengths)
            # rich moves up by what it has drawn, not by what has become of it.
            self._live_render._shape = (width, rows)
        shown = self._draw()
        lines = self.console.render_lines(shown, pad=False)
        self._lengths = [Segment.get_line_length(line) for line in lines]
        return shown


class TerminalDisplay(SearchDisplay, AbstractContextManager["TerminalDisplay"]):
    """What long commands show themselves through."""

    def __init__(self, console: Console | None = None, quiet: bool = False, log: str | None = None) -> None:
        """`quiet`: warnings and faults alone. `log`: a tracker's name. Raises ConfigError where that cannot be had."""
        require_tracker(log)
        self.log = log
        self.tracker: Tracker | None = None
        self.console = console or Console(stderr=True, highlight=False)
        self.quiet = quiet
        self._closing = ExitStack()  # the panel and the tracker
        self._bar: Bar | None = None
        self._tasks: dict[str, TaskID] = {}
        self._lines: dict[str, float] = {}  # when each training had its last line
        self._told = -LINE_SECONDS  # when the last line said how far something is
        self._progress: Progress | None = None
        self._started = time.monotonic()
        self._deadline: float | None = None

    def __exit__(self, *error: object) -> None:
        self._stop_bars()
        self._closing.close()

    def track(self, paths: StudyPaths) -> None:
        """Begins to log, if that was asked for."""
        if self.log is not None:
            self.tracker = self._closing.enter_context(closing(make_tracker(self.log, paths.folder, paths.name, self.note)))

    def track_epoch(self, name: str, candidate: Candidate, metrics: EpochMetrics) -> None:
        if self.tracker is not None:
            self.tracker.epoch(name, candidate, metrics)

    # ------------------------------------------------------------------------------------------- what any command does

    def decoding(self, items: Iterable, what: str, count: int) -> Iterable:
        """Passes `items` on, of which there are `count`, and shows how far it is."""
        if self.quiet:
            yield from items
        elif not self.console.is_terminal:
            started = time.monotonic()
            for done, item in enumerate(items):
                if self._may_tell(started, FEW_SECONDS):
                    self.say(f"{what}: {done:,} of {count:,}")
                yield item
        else:
            self._stop_bars()  # of trainings that have ended
            columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Bar(*columns, console=self.console, transient=True) as bar:
                yield from bar.track(items, total=count)

    def training(self, epoch: int, epochs: int, text: str, name: str = "", share: float = 1.0) -> None:
        """How far a training is, of several the one of this name, and the `share` of this epoch that is done. In a terminal a
        bar each, else a line now and then."""
        if self.quiet:
            return
        done, within = epoch - 1 + share, "" if share == 1 else f"{share:.0%}"
        if self.console.is_terminal:
            if self._bar is None:
                columns = (
                    TextColumn("{task.description}"),
                    TextColumn("{task.fields[at]}"),
                    BarColumn(bar_width=20),
                    TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True)),
                )
                self._bar = Bar(*columns, console=self.console, transient=True)
                self._bar.start()
            if name not in self._tasks:
                self._tasks[name] = self._bar.add_task(name or "epoch", total=epochs, at="", text="")
            at = f"{epoch}/{epochs} {within:>3s}"
            self._bar.update(self._tasks[name], completed=done, at=at, text=text, visible=not name or done < epochs)
            return
        now = time.monotonic()
        ended = epoch in (1, epochs) or now - self._lines.get(name, -LINE_SECONDS) >= LINE_SECONDS
        if self._may_tell(self._started, LINE_SECONDS) if within else ended:
            self._lines[name] = self._told = now
            self.say(f"{name}{'  ' * bool(name)}epoch {epoch:4d}/{epochs}  {within}{'  ' * bool(within)}{text}")

    def _may_tell(self, since: float, seconds: float) -> bool:
        """Whether a line may say how far something is that began at `since` and should not be heard of for so many seconds."""
        now = time.monotonic()
        if now - since < seconds or now - self._told < LINE_SECONDS:
            return False
        self._told = now
        return True

    def _stop_bars(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = None
        self._tasks.clear()

    def say(self, text: str) -> None:
        """What is worth a line, unless little is wanted."""
        if not self.quiet:
            self.note(text)

    def note(self, text: str) -> None:
        """What somebody should know."""
        self.console.print(Text(text), soft_wrap=True)

    # ------------------------------------------------------------------------------------------------------- a search

    def begin(self, plan: SearchPlan) -> None:
        self.track(plan.paths)
        for key, value in plan_lines(plan).items():
            self.say(f"{key:10s}{value}")
        for warning in plan.warnings:
            self.note(f"Warning: {warning}")
        for one in plan.warm_start:
            self.say(start_text(one))
        if plan.trained < plan.goal and self.console.is_terminal and not self.quiet:
            self._closing.enter_context(Panel(self.console, self._panel))

    def begin_finalists(self, chosen: Round, there: int) -> None:
        self.say(f"finalists: {round_text(chosen)}" + (f"; {there} trainings are done" if there else ""))

    def until(self, deadline: float | None) -> None:
        self._started, self._deadline = time.monotonic(), deadline

    def update(self, progress: Progress) -> None:
        self._progress = progress
        if not (self.quiet or self.console.is_terminal) and self._may_tell(self._started, LINE_SECONDS):
            self.say(running_text(progress, self._left(progress)))

    def epoch(self, drawn: Drawn, metrics: EpochMetrics) -> None:
        self.track_epoch(run_name(*drawn.run_name), drawn.candidate, metrics)

    def ended(self, row: TrialRecord, progress: Progress) -> None:
        if self.tracker is not None:
            self.tracker.end(run_name(row.number, row.finalist, row.seed), row.outcome)
        # Of finalists the mean over the seeds decides, at their end.
        leads = row.finalist is None and progress.best is not None and progress.best.number == row.number
        best = "  ← best so far" if leads else ""
        if not self.console.is_terminal:
            self._told = time.monotonic()
            self.say(f"{row_text(row)}  [{progress.trained}/{progress.goal}{left_text(self._left(progress))}]{best}")
            return
        # The panel has the counts, and a line a trial is what an eye can follow: `nas list` shows the rest of it.
        text = Text(row_text(row))
        text.truncate(max(1, self.console.width - len(best)), overflow="ellipsis")
        self.say(f"{text.plain}{best}")

    def _left(self, progress: Progress) -> float | None:
        now = time.monotonic()
        return seconds_left(progress, now - self._started, None if self._deadline is None else self._deadline - now)

    def _panel(self) -> Group:
        if self._progress is None:
            return Group()
        return panel(self._progress, self.console.width, self._left(self._progress))

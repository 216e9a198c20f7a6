"""How a running search looks: a panel that is redrawn in a terminal, a line for each finished trial elsewhere.

Everything goes to standard error; standard output belongs to data.
"""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from nas.report.words import count_text, row_text, time_text
from nas.search.finalists import Round
from nas.search.outcomes import TrialRow
from nas.search.progress import Progress
from nas.search.run import SearchPlan
from nas.search.warm_start import Fitted

OBJECTIVES = {"accuracy": "accuracy under the budget", "front": "the front of accuracy against parameters"}


def start_text(fitted: Fitted) -> str:
    """What became of a candidate to begin with, and why."""
    because = "; ".join(fitted.reasons)
    if fitted.values is None:
        return f"left out  {fitted.start.origin}: {because}"
    if fitted.is_result:
        return f"taken over {fitted.start.origin}, as a result"
    return f"begins with {fitted.start.origin}" + (f" (recipe: {because})" if because else "")


def round_text(chosen: Round) -> str:
    seeds = f"{chosen.seeds} seeds" if chosen.seeds > 1 else "one seed"
    return f"the best {chosen.count} again, {chosen.epochs} epochs by {seeds}: {chosen.cost} epochs"


def counts_text(progress: Progress) -> str:
    """The counts that are not zero, trained ones first."""
    names = {"trained": "to the end", "pruned_early": "pruned early", "diverged": "diverged"}
    trained = ", ".join(f"{progress.counts[key]} {name}" for key, name in names.items() if progress.counts[key])
    rest = {"imported": "taken over", "over_budget": "over budget", "duplicate": "duplicate", "failed": "failed"}
    others = "".join(f" · {progress.counts[key]} {name}" for key, name in rest.items() if progress.counts[key])
    return f"trained {progress.trained}/{progress.goal}{f' ({trained})' if trained else ''}{others}"


def finalists_plan(plan: SearchPlan) -> str:
    if plan.finalists is None:
        return "none"
    if plan.finalist_seconds is not None:
        return f"in the last {time_text(plan.finalist_seconds)}, as many of the best as the search's own cost then allows"
    epochs = int(plan.settings.parameters["epochs"])
    search = plan.goal * (plan.pruner.expected_epochs() or epochs)
    most = "" if plan.pruner.expected_epochs() else "at most "
    return f"{round_text(plan.finalists)}, beside {most}about {search:.0f} of the search"


class TerminalDisplay:
    """What `run_search` shows itself through."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._progress: Progress | None = None
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    # ------------------------------------------------------------------------------------- before the search begins

    def decoding(self, items: Iterable, what: str, count: int) -> Iterable:
        if not self.console.is_terminal:
            self.note(f"{what}: {count:,}")
            yield from items
            return
        with Bar(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=self.console) as bar:
            yield from bar.track(items, total=count)

    def begin(self, plan: SearchPlan) -> None:
        settings, data = plan.settings, plan.settings.data
        images = f"{plan.train_images:,} train, {plan.validation_images:,} choose"
        if data.subset is not None:
            images += ", by --train-subset"
        if plan.skipped_images:
            images += f"; {plan.skipped_images} unreadable ones left out"
        shape = settings.shape
        lines = {
            "study": str(plan.paths.folder),
            "space": f"{settings.space}, {settings.budget.describe()}",
            "data": f"{data.dataset}{f' in {data.folder}' if data.folder else ''}, {shape.channels}×{shape.size}×{shape.size}, "
            f"{shape.classes} classes: {images}",
            "search": f"{settings.study.sampler.name}, for {OBJECTIVES[settings.study.objective]}",
            "training": f"{settings.parameters['epochs']} epochs; {settings.study.pruner.name} prunes {plan.pruner.describe()}",
            "finalists": finalists_plan(plan),
            "workers": plan.workers,
            "precision": plan.precision,
            "goal": f"{plan.goal} trained networks" + (f", {plan.trained} of them already there" if plan.trained else ""),
        }
        for key, value in lines.items():
            self.console.print(Text(f"{key:10s}{value}"), soft_wrap=True)
        for warning in plan.warnings:
            self.note(f"Warning: {warning}")
        for one in plan.warm_start:
            self.note(start_text(one))
        self._started = time.monotonic()
        if plan.trained < plan.goal and self.console.is_terminal:
            self._live = Live(console=self.console, get_renderable=self._panel, refresh_per_second=4, transient=True)
            self._live.start()

    def begin_finalists(self, chosen: Round, there: int) -> None:
        self.note(f"finalists: {round_text(chosen)}" + (f"; {there} trainings are there" if there else ""))
        self._started = time.monotonic()

    # --------------------------------------------------------------------------------------------- while it runs

    def update(self, progress: Progress) -> None:
        self._progress = progress

    def ended(self, row: TrialRow, progress: Progress) -> None:
        best = "  ← best" if progress.best is not None and progress.best.number == row.number else ""
        self.console.print(Text(row_text(row) + best), soft_wrap=True)
        if not self.console.is_terminal:
            self.console.print(Text(f"            {counts_text(progress)}{self._left(progress)}"), soft_wrap=True)

    def note(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def _left(self, progress: Progress) -> str:
        if not progress.trained_here:
            return ""
        each = (time.monotonic() - self._started) / progress.trained_here
        return f" · about {time_text(each * (progress.goal - progress.trained))} left"

    def _panel(self) -> Group:
        progress = self._progress
        if progress is None:
            return Group()
        lines = [Text(counts_text(progress) + self._left(progress), style="bold")]
        if progress.best is not None and progress.best.accuracy is not None:
            best = progress.best
            lines.append(
                Text(f"best     {best.accuracy:.2%}  trial {best.number}  {count_text(best.params)}  {best.architecture}")
            )
        if not progress.running:
            lines.append(Text("drawing" if progress.devices else "starting the workers and loading the data"))
        for running in progress.running.values():
            last = running.last
            at = "epoch 1" if last is None else f"epoch {last.epoch + 1 if last.epoch < progress.epochs else last.epoch}"
            seen = "" if last is None else f"  {last.ema_val_accuracy:.2%}  {last.images_per_second:,.0f} images/s"
            what = f"{count_text(running.params)}  {running.candidate.arch.one_line()}"
            lines.append(Text(f"training trial {running.number}  {at}/{progress.epochs}{seen}  {what}"))
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*lines)

"""The panel of a running search, for a terminal of any width: pure, from what the coordinator shows of itself."""

from collections.abc import Sequence
from functools import partial

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nas.config import METRIC_WORDS
from nas.jobs.job import Running
from nas.report.words import count_text, counts_line, outcome_text, time_text
from nas.study.outcomes import COUNTED
from nas.study.source import Progress

SPARKS = "▁▂▃▄▅▆▇█"
BAR, GAP = 8, 2  # characters of an epoch's bar, and between two columns
WIDE, MIDDLE, NARROW = 118, 88, 60  # columns of the terminal from which everything has room, most, and more than the numbers
NAMED = 4  # trainings in a line where there is no terminal


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` of them at most, from the lowest to the highest as blocks; empty without any."""
    shown = list(values)[-width:] if width > 0 else []
    if not shown:
        return ""
    low, span = min(shown), max(shown) - min(shown)
    return "".join(SPARKS[-1 if span == 0 else round((value - low) / span * (len(SPARKS) - 1))] for value in shown)


def counts_text(progress: Progress, left: float | None, width: int) -> str:
    """The counts that are not zero, trained ones first, and the seconds `left`; what matters least goes where it is narrow."""
    trained, rest = counts_line(progress.counts, COUNTED), ("imported", "over_budget", "duplicate", "failed")
    others = "".join(f" · {progress.counts[key]} {outcome_text(key)}" for key in rest if progress.counts[key])
    head, tail = f"trained {progress.trained}/{progress.goal}", left_text(left)
    whole = f"{head}{f' ({trained})' if trained else ''}{others}{tail}"
    return next((text for text in (whole, f"{head}{others}{tail}") if len(text) <= width), f"{head}{tail}")


def seconds_left(progress: Progress, elapsed: float, until_deadline: float | None) -> float | None:
    """Of this run, by what a training has cost in it so far, the pruned and the unfinished ones among them; at most the time and
    the compute that are given. None before one has ended, unless time is given."""
    known = [] if until_deadline is None else [max(0.0, until_deadline)]
    if progress.flop_left is not None and progress.flop_here:
        known.append(elapsed * max(0.0, progress.flop_left) / progress.flop_here)
    if progress.trained_here:
        known.append(elapsed / progress.trained_here * (progress.goal - progress.trained))
    return min(known, default=None)


def left_text(seconds: float | None) -> str:
    return "" if seconds is None else f" · about {time_text(seconds)} left"


def panel(progress: Progress, width: int, left: float | None) -> Group:
    """`left`: seconds."""
    line, best = partial(Text.assemble, no_wrap=True, overflow="ellipsis"), progress.best
    lines: list[Text | Table] = [line(counts_text(progress, left, width), style="bold")]
    if best is not None and best.accuracy is not None:
        sparks = sparkline(progress.history, max(0, width // 5))
        said = f"best  {best.accuracy:.2%}  trial {best.number}  {count_text(best.params)}"
        lines.append(line(said, "  ", (sparks, "cyan"), "  ", best.architecture or ""))
    return Group(*lines, _workers(progress, width) if progress.running else line(idle_text(progress)))


def idle_text(progress: Progress) -> str:
    """Where nothing is trained."""
    return "drawing" if progress.devices else "starting the workers and loading the data"


def phase_text(running: Running) -> str:
    """What its worker does: `training 42%`, `validating 60%`."""
    now = running.progress
    if running.waiting:
        return "waiting"
    if now is None:
        return "training" if running.curve else "starting"
    return f"{now.phase} {now.share:.0%}"


def running_text(progress: Progress, left: float | None) -> str:
    """In a line, where there is no terminal: how far the search is, and the trainings under way, some of them by name."""
    said = []
    for _, running in sorted(progress.running.items())[:NAMED]:
        epoch = f"epoch {_epoch(running, progress)}/{progress.epochs}"
        rate = running.progress.images_per_second if running.progress else None
        said.append(f"{running.job.title}: {epoch}, {phase_text(running)}" + (f", {rate:,.0f} images/s" if rate else ""))
    if len(progress.running) > NAMED:
        said.append(f"{len(progress.running) - NAMED} more")
    return f"{'; '.join(said) or idle_text(progress)}  [{progress.trained}/{progress.goal}{left_text(left)}]"


def _epoch(running: Running, progress: Progress) -> int:
    """The one under way, from 1; the last one, once it has ended."""
    return min(len(running.curve) + 1, progress.epochs)


def _workers(progress: Progress, width: int) -> Table:
    """One line each; the narrower the terminal, the fewer columns."""
    on_gpu = any(running.memory is not None for running in progress.running.values())
    workers = [(progress.devices.get(worker, str(worker)), running) for worker, running in sorted(progress.running.items())]
    rows = [_cells(running, progress, device, width, on_gpu) for device, running in workers]
    shown = list(rows[0])
    # Before 14.3, rich counts a gap behind the last column, too, and else cuts every column.
    taken = GAP + sum(GAP + max(len(name), *(len(row[name]) for row in rows)) for name in shown if name != "network")
    if width - taken < len("network"):
        shown.remove("network")
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim", expand=False)
    for name in shown:
        right = name not in ("worker", "epoch", "now", "network")
        most = width - taken if name == "network" else None
        table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis", max_width=most)
    for row in rows:
        table.add_row(*(row[name] for name in shown))
    return table


def _cells(running: Running, progress: Progress, device: str, width: int, on_gpu: bool) -> dict[str, str]:
    """By column, of those for which there is room."""
    drawn, last, epochs, now = progress.drawn[running.job.key], running.last, progress.epochs, running.progress
    wide, middle = width >= WIDE, width >= MIDDLE
    value = None if last is None else last.validation(progress.metric)
    done = 0.0 if last is None else last.epoch
    rate = None if last is None else last.images_per_second
    if now is not None:
        done += now.share if now.phase == "training" else 1
        rate = now.images_per_second or rate
    bar = f" {'█' * round(BAR * done / epochs):░<{BAR}s}" if middle else ""
    phase = phase_text(running).ljust(len("validating 100%"))  # so that the columns keep their places
    cells = {
        "worker": (wide, device.partition(",")[0]),
        "trial": (True, str(drawn.number)),
        "params": (middle, count_text(drawn.params)),
        "epoch": (True, f"{_epoch(running, progress)}/{epochs}{bar}"),
        "now": (width >= NARROW, phase),
        METRIC_WORDS[progress.metric]: (True, "" if value is None else f"{value:.2%}"),
        "images/s": (middle, "" if rate is None else f"{rate:,.0f}"),
        "memory": (wide and on_gpu, "" if running.memory is None else f"{running.memory / 2**30:.1f} GiB"),
        "network": (True, drawn.candidate.arch.one_line()),
    }
    return {name: text for name, (has_room, text) in cells.items() if has_room}

"""The report's tables as data, and how they are written as Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nas.budget import Layer, Part
from nas.config import METRIC_WORDS, MetricName
from nas.report.network import shape_text
from nas.report.words import count_text, outcome_text
from nas.study.finalists import Finalist
from nas.study.trials import TrialRecord
from nas.train.checkpoint import EpochMetrics

RESNET18 = (
    ("stem", "7×7, 64, stride 2; 3×3 maximum, stride 2", 9_536),
    ("stage 1", "2 × basic [3×3, 64; 3×3, 64]", 147_968),
    ("stage 2", "2 × basic [3×3, 128; 3×3, 128]", 525_568),
    ("stage 3", "2 × basic [3×3, 256; 3×3, 256]", 2_099_712),
    ("stage 4", "2 × basic [3×3, 512; 3×3, 512]", 8_393_728),
    ("head", "average to 1×1, linear", 0),
)
"""ResNet-18 (arXiv 1512.03385, table 1) with its parameters by part; a linear layer to K classes has 513 K."""


@dataclass(frozen=True)
class Column:
    title: str
    cell: Callable[[Any], object]  # of an item; None is an empty cell
    number: bool = True  # set flush right
    optional: bool = False  # left out where it says nothing of any item


@dataclass(frozen=True)
class Table:
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: frozenset[int] = frozenset()  # columns that are set flush right
    marked: int | None = None  # the row of the best

    @classmethod
    def build(cls, columns: Sequence[Column], items: Iterable[Any], marked: int | None = None) -> "Table":
        """A row an item."""
        cells = [["" if (cell := column.cell(item)) is None else str(cell) for column in columns] for item in items]
        kept = [i for i in range(len(columns)) if not columns[i].optional or any(row[i] for row in cells)]
        numbers = frozenset(place for place, i in enumerate(kept) if columns[i].number)
        return cls(tuple(columns[i].title for i in kept), [tuple(row[i] for i in kept) for row in cells], numbers, marked)

    def head(self, count: int) -> "Table":
        marked = self.marked if self.marked is not None and self.marked < count else None
        return replace(self, rows=self.rows[:count], marked=marked)

    def shortened(self, count: int) -> "Table":
        """So many rows, of which the last is the last of all: a total, in some tables."""
        return replace(self, rows=[*self.rows[: count - 1], self.rows[-1]], marked=None)

    def markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

        rule = "|" + "|".join("---:" if i in self.numbers else "---" for i in range(len(self.columns))) + "|"
        return "\n".join([line(self.columns), rule, *map(line, self.rows)]) + "\n"

    def latex(self) -> str:
        """A tabular by the package booktabs."""
        kinds = "".join("r" if i in self.numbers else "l" for i in range(len(self.columns)))

        def line(cells: Sequence[str]) -> str:
            return " & ".join(map(latex_text, cells)) + r" \\"

        top = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", line(self.columns), r"\midrule"]
        return "\n".join([*top, *map(line, self.rows), r"\bottomrule", r"\end{tabular}"]) + "\n"

    def csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "–": "--",
    **{character: "\\" + character for character in "&%$#_{}"},
}


def latex_text(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.2f}"


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def trials_table(trials: Sequence[TrialRecord], best: int | None, metric: str = "accuracy") -> Table:
    """The configurations that were trained, the best first."""
    trained = [one for one in trials if one.accuracy is not None and one.outcome != "duplicate"]
    trained.sort(key=lambda one: (one.outcome != "trained", -(one.accuracy or 0.0), one.number))
    columns = (
        Column("trial", lambda one: one.number),
        Column("network", lambda one: one.architecture, number=False),
        Column("parameters", lambda one: _count(one.params)),
        Column("MACs", lambda one: None if one.macs is None else count_text(one.macs)),
        Column("outcome", lambda one: outcome_text(one.outcome), number=False),
        Column("epochs", lambda one: one.epochs),
        Column(f"{metric} (%)", lambda one: _percent(one.accuracy)),
    )
    return Table.build(columns, trained, next((i for i, one in enumerate(trained) if one.number == best), None))


def finalists_table(finalists: Sequence[Finalist], trials: Sequence[TrialRecord]) -> Table:
    columns = (
        Column("trial", lambda one: one.number),
        Column("network", lambda one: trials[one.number].architecture, number=False),
        Column("parameters", lambda one: _count(trials[one.number].params)),
        Column("in the search (%)", lambda one: _percent(trials[one.number].accuracy)),
        Column("epochs", lambda one: one.epochs),
        Column("seeds", lambda one: len(one.accuracies)),
        Column("mean (%)", lambda one: _percent(one.mean)),
        Column("deviation (points)", lambda one: _percent(one.deviation)),
    )
    return Table.build(columns, finalists, marked=0)


def layers_table(layers: Sequence[Layer]) -> Table:
    total = sum(layer.params for layer in layers)
    rows = [(layer.name, layer.kind, shape_text(layer.output), f"{layer.params:,}") for layer in layers]
    size = f"{4 * total / 1e6:.2f} MB in float32"
    return Table(("layer", "kind", "output", "parameters"), [*rows, ("total", size, "", f"{total:,}")], frozenset({2, 3}))


def stages_table(parts: Sequence[Part], classes: int) -> Table:
    """The network's stages beside ResNet-18's."""
    own = {part.name: part for part in parts}
    known = {name: (built, params) for name, built, params in RESNET18}
    known["head"] = (f"{known['head'][0]} to {classes}", 513 * classes)
    names = [name for name in dict.fromkeys([*own, *known]) if name != "head"]
    rows = []
    for name in [*names, "head"]:
        part = own.get(name)
        built, params = known.get(name, ("", None))
        mine = (shape_text(part.output), part.built, f"{part.params:,}") if part else ("", "", "")
        rows.append((name, *mine, built, _count(params) or ""))
    totals = sum(part.params for part in parts), sum(params for _, params in known.values())
    rows.append(("total", "", "", f"{totals[0]:,}", "", f"{totals[1]:,}"))
    return Table(("part", "output", "this network", "parameters", "ResNet-18", "its parameters"), rows, frozenset({1, 3, 5}))


def epochs_table(curve: Sequence[EpochMetrics], metric: MetricName = "accuracy") -> Table:
    """With the highest value of `metric` on the validation images so far, where there is one."""
    best: list[float | None] = []
    for metrics in curve:
        known = [value for value in (*best[-1:], metrics.validation(metric)) if value is not None]
        best.append(max(known, default=None))
    columns = (
        Column("epoch", lambda one: one[0].epoch),
        Column("training loss", lambda one: f"{one[0].train_loss:.4f}"),
        Column("training accuracy (%)", lambda one: _percent(one[0].train_accuracy)),
        Column("validation loss", lambda one: None if one[0].ema_val_loss is None else f"{one[0].ema_val_loss:.4f}"),
        Column(f"validation {METRIC_WORDS[metric]} (%)", lambda one: _percent(one[0].validation(metric))),
        Column("best so far (%)", lambda one: _percent(one[1])),
        Column("learning rate", lambda one: f"{one[0].lr:.3g}"),
        Column("seconds", lambda one: f"{one[0].seconds:.1f}"),
    )
    return Table.build(columns, zip(curve, best, strict=True))

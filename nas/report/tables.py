"""The report's tables as data, and how they are written as Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nas.budget import Layer, Part
from nas.config import METRIC_WORDS, MetricName
from nas.report.picture import shape_text
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
class Table:
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: frozenset[int] = frozenset()  # columns that are set flush right
    marked: int | None = None  # the row of the best

    def is_number(self, column: int) -> bool:
        return column in self.numbers

    def head(self, count: int) -> "Table":
        marked = self.marked if self.marked is not None and self.marked < count else None
        return replace(self, rows=self.rows[:count], marked=marked)

    def markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

        rule = "|" + "|".join("---:" if self.is_number(i) else "---" for i in range(len(self.columns))) + "|"
        return "\n".join([line(self.columns), rule, *map(line, self.rows)]) + "\n"

    def latex(self) -> str:
        """A tabular by the package booktabs."""
        kinds = "".join("r" if self.is_number(i) else "l" for i in range(len(self.columns)))

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


def _accuracy(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def trials_table(rows: Sequence[TrialRecord], best: int | None, metric: str = "accuracy") -> Table:
    """The configurations that were trained, the best first."""
    trained = [row for row in rows if row.accuracy is not None and row.outcome != "duplicate"]
    trained.sort(key=lambda row: (row.outcome != "trained", -(row.accuracy or 0.0), row.number))
    return Table(
        ("trial", "network", "parameters", "MACs", "outcome", "epochs", f"{metric} (%)"),
        [
            (
                str(row.number),
                row.architecture or "",
                _count(row.params),
                "" if row.macs is None else count_text(row.macs),
                outcome_text(row.outcome),
                str(row.epochs),
                _accuracy(row.accuracy),
            )
            for row in trained
        ],
        frozenset({0, 2, 3, 5, 6}),
        next((i for i, row in enumerate(trained) if row.number == best), None),
    )


def finalists_table(finalists: Sequence[Finalist], rows: Sequence[TrialRecord]) -> Table:
    return Table(
        ("trial", "network", "parameters", "in the search (%)", "epochs", "seeds", "mean (%)", "deviation (points)"),
        [
            (
                str(one.number),
                rows[one.number].architecture or "",
                _count(rows[one.number].params),
                _accuracy(rows[one.number].accuracy),
                str(one.epochs),
                str(len(one.accuracies)),
                _accuracy(one.mean),
                "" if one.deviation is None else f"{100 * one.deviation:.2f}",
            )
            for one in finalists
        ],
        frozenset({0, 2, 3, 4, 5, 6, 7}),
        0 if finalists else None,
    )


def layers_table(layers: Sequence[Layer]) -> Table:
    total = sum(layer.params for layer in layers)
    rows = [(layer.name, layer.kind, shape_text(layer.output), _count(layer.params)) for layer in layers]
    size = f"{4 * total / 1e6:.2f} MB in float32"
    return Table(("layer", "kind", "output", "parameters"), [*rows, ("total", size, "", _count(total))], frozenset({2, 3}))


def stages_table(parts: Sequence[Part], classes: int) -> Table:
    """The network's stages beside ResNet-18's."""
    own = {part.name: part for part in parts}
    names = list(dict.fromkeys([*(part.name for part in parts if part.name != "head"), *(name for name, _, _ in RESNET18)]))
    names.remove("head")
    known = {name: (built, params) for name, built, params in RESNET18}
    known["head"] = (f"{known['head'][0]} to {classes}", 513 * classes)
    rows = []
    for name in [*names, "head"]:
        part = own.get(name)
        built, params = known.get(name, ("", None))
        mine = (shape_text(part.output), part.built, _count(part.params)) if part else ("", "", "")
        rows.append((name, *mine, built, _count(params)))
    totals = sum(part.params for part in parts), sum(params for _, params in known.values())
    rows.append(("total", "", "", _count(totals[0]), "", _count(totals[1])))
    return Table(("part", "output", "this network", "parameters", "ResNet-18", "its parameters"), rows, frozenset({1, 3, 5}))


def epochs_table(curve: Sequence[EpochMetrics], metric: MetricName = "accuracy") -> Table:
    """With the highest value of `metric` on the validation images so far, where there is one."""
    rows = []
    best: float | None = None
    for metrics in curve:
        value = metrics.validation(metric)
        best = value if best is None else best if value is None else max(best, value)
        rows.append(
            (
                str(metrics.epoch),
                f"{metrics.train_loss:.4f}",
                _accuracy(metrics.train_accuracy),
                "" if metrics.ema_val_loss is None else f"{metrics.ema_val_loss:.4f}",
                _accuracy(value),
                _accuracy(best),
                f"{metrics.lr:.3g}",
                f"{metrics.seconds:.1f}",
            )
        )
    columns = (
        "epoch",
        "training loss",
        "training accuracy (%)",
        "validation loss",
        f"validation {METRIC_WORDS[metric]} (%)",
        "best so far (%)",
        "learning rate",
        "seconds",
    )
    return Table(columns, rows, frozenset(range(8)))

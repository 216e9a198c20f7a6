"""Tables: what a reader takes for the number has to be it."""

import csv
import io

import torchvision

from nas.report.network import list_layers, list_parts
from nas.report.tables import (
    RESNET18,
    Table,
    epochs_table,
    finalists_table,
    latex_text,
    layers_table,
    stages_table,
    trials_table,
)
from nas.space.space_file import CIFAR10
from nas.study.finalists import Finalist
from nas.train.checkpoint import EpochMetrics
from tests.report.trials import training
from tests.reported import REPORTED

TABLE = Table(("name", "a_b"), [("x|y", "50 %"), ("a & b", "1")], frozenset({1}))


def test_notations() -> None:
    assert TABLE.markdown() == "| name | a_b |\n|---|---:|\n| x\\|y | 50 % |\n| a & b | 1 |\n"
    assert TABLE.csv() == "name,a_b\nx|y,50 %\na & b,1\n"
    assert TABLE.latex().splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"name & a\_b \\",
        r"\midrule",
        r"x\textbar{}y & 50 \% \\",
        r"a \& b & 1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex_knows_every_character_that_means_something_to_it() -> None:
    assert latex_text(r"\{}$&#^_~%<>|×±") == (
        r"\textbackslash{}\{\}\$\&\#\textasciicircum{}\_\textasciitilde{}\%\textless{}\textgreater{}\textbar{}$\times$$\pm$"
    )


def test_trials_come_by_accuracy_those_that_got_to_their_end_first() -> None:
    rows = [
        training(0, [0.5]),
        training(1, [0.9], "pruned_early"),
        training(2, [0.7], macs=2_500_000),
        training(3, (), "over_budget"),
        training(4, [0.7], "duplicate"),
    ]
    table = trials_table(rows, best=2)
    assert [row[0] for row in table.rows] == ["2", "0", "1"]
    assert table.rows[0] == ("2", "network 2", "1,000", "2.5M", "completed", "1", "70.00")
    assert table.marked == 0
    assert [row[0] for row in trials_table(rows, 0).head(1).rows] == ["2"]
    assert trials_table(rows, 0).head(1).marked is None, "the best may not be among those shown"
    assert trials_table([], None).rows == []


def test_finalists_have_their_spread() -> None:
    rows = [training(0, [0.5]), training(1, [0.6])]
    table = finalists_table([Finalist(1, 9, (0.7, 0.72)), Finalist(0, 9, (0.7,))], rows)
    assert table.rows[0] == ("1", "network 1", "1,000", "60.00", "9", "2", "71.00", "1.41")
    assert table.rows[1][-2:] == ("70.00", "")


def test_epochs_have_the_best_so_far() -> None:
    def epoch(number: int, accuracy: float | None) -> EpochMetrics:
        return EpochMetrics(number, 1.5, 0.5, None, None, None if accuracy is None else 1.0, accuracy, 0.1, 2.0, 100.0)

    table = epochs_table([epoch(1, 0.5), epoch(2, 0.4), epoch(3, 0.6)])
    assert [row[5] for row in table.rows] == ["50.00", "50.00", "60.00"]
    assert [row[4:6] for row in epochs_table([epoch(1, None)]).rows] == [("", "")]


def test_resnet18_beside_it_is_torchvisions() -> None:
    """Its parameters by part, and in all what the reports print."""
    model = torchvision.models.resnet18(num_classes=10)
    by_part = dict.fromkeys(("stem", "stage 1", "stage 2", "stage 3", "stage 4", "head"), 0)
    for name, parameter in model.named_parameters():
        part = f"stage {name[5]}" if name.startswith("layer") else "head" if name.startswith("fc") else "stem"
        by_part[part] += parameter.numel()
    assert {name: params for name, _, params in RESNET18 if name != "head"} == {n: p for n, p in by_part.items() if n != "head"}
    arch, params = REPORTED["resnet-443"]
    table = stages_table(list_parts(arch, CIFAR10), 10)
    assert table.rows[-1] == ("total", "", "", f"{params:,}", "", "11,181,642")
    assert [row[0] for row in table.rows] == ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "head", "total"]
    assert table.rows[4][1:4] == ("", "", ""), "it has three stages"


def test_csv_of_layers_is_read_back_and_ends_with_their_total() -> None:
    arch, params = REPORTED["resnet-2222-slim"]
    table = layers_table(list_layers(arch, CIFAR10))
    assert table.rows[-1] == ("total", "7.57 MB in float32", "", f"{params:,}")
    assert list(csv.reader(io.StringIO(table.csv()))) == [list(table.columns), *map(list, table.rows)]

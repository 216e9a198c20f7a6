"""Tables and figures in words: what a reader takes for the number has to be it."""

import csv
import io
import xml.etree.ElementTree as xml

import pytest
import torchvision

from nas.budget.closed_form import closed_form_params
from nas.config import ArchConfig, ImageShape, StageConfig
from nas.report.network import draw_network, list_layers, list_parts, text_picture
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
from nas.report.words import bytes_text, count_text
from nas.study.finalists import Finalist
from nas.train.checkpoint import EpochMetrics
from tests.report.trials import training
from tests.reported import REPORTED

CIFAR10 = ImageShape(channels=3, size=32, classes=10)
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


@pytest.mark.parametrize("name", REPORTED)
def test_parts_hold_every_parameter_and_the_shapes_that_images_take(name: str) -> None:
    arch, params = REPORTED[name]
    layers = list_layers(arch, CIFAR10)
    parts = list_parts(arch, CIFAR10)
    assert parts == list_parts(arch, CIFAR10, layers)
    assert sum(part.params for part in parts) == params
    for i, part in enumerate(parts[1:-1]):
        own = [layer for layer in layers if layer.name.startswith(f"stages.{i}.") and ".se." not in layer.name]
        assert part.output == own[-1].output, part.name


@pytest.mark.parametrize("size", [15, 32, 33])
@pytest.mark.parametrize("downsample", ["conv", "maxpool", "avgpool"])
@pytest.mark.parametrize(
    ("block", "built"),
    [("bottleneck", "1×1, 3; 3×3, 3; 1×1, 12"), ("separable", "3×3 depthwise; 1×1, 12"), ("basic", "3×3, 12; 3×3, 12")],
)
def test_parts_of_odd_sizes(size: int, downsample: str, block: str, built: str) -> None:
    stages = (StageConfig(blocks=1, channels=8), StageConfig(blocks=2, channels=12), StageConfig(blocks=1, channels=16))
    shape = ImageShape(channels=1, size=size, classes=7)
    arch = ArchConfig.model_validate(
        {"stages": stages, "stem": {"stride": 2, "type": "whitening"}, "downsample": downsample, "block": block}
    )
    layers, parts = list_layers(arch, shape), list_parts(arch, shape)
    assert sum(part.params for part in parts) == closed_form_params(arch, shape)
    for i, part in enumerate(parts[1:-1]):
        assert part.output == [layer.output for layer in layers if layer.name.startswith(f"stages.{i}.")][-1]
    assert parts[2].built == f"2 × {block} [{built}]"
    assert parts[0].built == "whitening 2×2, 3×3, 8, stride 2"


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


@pytest.mark.parametrize("name", REPORTED)
def test_picture_is_sound_and_names_every_part(name: str) -> None:
    arch, params = REPORTED[name]
    parts = list_parts(arch, CIFAR10)
    svg = xml.fromstring(draw_network(parts, params))
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if text in {part.name for part in parts}] == [part.name for part in parts]
    assert len(list(svg.iter("{http://www.w3.org/2000/svg}rect"))) == len(parts)
    assert {f"{part.params:,}" for part in parts} <= set(texts)


def test_picture_in_text_fits_its_width() -> None:
    arch, _ = REPORTED["resnet-443"]
    lines = text_picture(list_parts(arch, CIFAR10))
    assert len(lines) == 5
    assert lines[3].split()[:3] == ["stage", "3", "256×8×8"]
    assert max(line.count("█") for line in lines) == lines[3].count("█"), "the last stage holds the most parameters"


def test_counts_and_bytes_have_three_digits_and_their_unit() -> None:
    counts = (None, 0, 999, 1000, 272_474, 999_499, 999_999, 4_483_172, 999_999_999)
    assert [count_text(value) for value in counts] == ["?", "0", "999", "1k", "272k", "999k", "1M", "4.48M", "1G"]
    assert [bytes_text(size) for size in (12, 340_000, 999_999, 1_210_000_000)] == ["12 bytes", "340 kB", "1 MB", "1.21 GB"]

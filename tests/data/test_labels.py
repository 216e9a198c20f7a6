"""Labels that stand in a table: which image each row means, what is refused, and what the data set then is."""

import csv
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas.config import DataConfig
from nas.data.datasets import load_dataset
from nas.data.formats.container import in_order
from nas.data.formats.tables import moved, read_labels
from nas.data.images import Dataset
from tests.data.on_disk import load, refusal

FORMS = "--labels takes a CSV with a header line or a Parquet file"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six grey images in two folders, their values 10 to 60."""
    folder = tmp_path / "pictures"
    for i, name in enumerate(["a/one.png", "a/two.png", "a/three.png", "b/four.png", "b/five.png", "b/six.png"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (12, 12), 10 * (i + 1)).save(folder / name)
    return folder


ROWS = [
    ("a/one.png", "cat", "p1"),
    ("a/two.png", "dog", "p1"),
    ("a/three.png", "cat", "p2"),
    ("b/four.png", "dog", "p2"),
    ("b/five.png", "cat", "p3"),
    ("b/six.png", "dog", "p3"),
]


def write_csv(path: Path, rows: Sequence[tuple[str, ...]], header: Sequence[str] = ("image", "label", "patient")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def values(data: Dataset) -> list[int]:
    return data.train.images[:, 0, 0, 0].tolist()


def test_images_have_the_labels_and_groups_of_their_rows_in_the_order_of_their_paths(pictures: Path, tmp_path: Path) -> None:
    data = load(pictures, write_csv(tmp_path / "labels.csv", ROWS), group_column="patient")
    assert data.classes == ("cat", "dog")
    assert values(data) == [10, 30, 20, 50, 40, 60]  # one, three, two; five, four, six
    assert data.train.labels.tolist() == [0, 0, 1, 0, 1, 1]
    assert data.train.groups.tolist() == [0, 1, 0, 2, 1, 2]
    assert data.groups == ("p1", "p2", "p3")
    assert (data.validation, data.test, data.skipped) == (None, None, 0)


def test_neither_the_order_of_rows_nor_the_names_of_groups_matter(pictures: Path, tmp_path: Path) -> None:
    first = load(pictures, write_csv(tmp_path / "first.csv", ROWS), group_column="patient")
    renamed = [(image, label, f"person {group}") for image, label, group in reversed(ROWS)]
    second = load(pictures, write_csv(tmp_path / "second.csv", renamed), group_column="patient")
    assert second.fingerprint == first.fingerprint
    assert second.groups == ("person p1", "person p2", "person p3")
    regrouped = [(image, label, "p1" if image == "b/six.png" else group) for image, label, group in ROWS]
    third = load(pictures, write_csv(tmp_path / "third.csv", regrouped), group_column="patient")
    assert third.fingerprint != first.fingerprint
    assert (
        load(pictures, tmp_path / "first.csv").fingerprint == replace(first, train=replace(first.train, groups=None)).fingerprint
    )


@pytest.mark.parametrize(
    "named",
    [
        lambda path: path,
        lambda path: f"./{path}",
        lambda path: path.removesuffix(".png"),
        lambda path: Path(path).name,
        lambda path: Path(path).stem,
        lambda path: str(Path.cwd() / "pictures" / path),
    ],
    ids=["path", "dotted path", "path without its ending", "file", "file without its ending", "whole path"],
)
def test_an_image_is_named_in_any_way_that_means_one_alone(named: Any, pictures: Path, tmp_path: Path) -> None:
    data = load(pictures, write_csv(tmp_path / "labels.csv", [(named(image), *rest) for image, *rest in ROWS]))
    assert data.train.labels.tolist() == [0, 0, 1, 0, 1, 1]


def test_columns_are_separated_by_what_the_header_has_most_of(pictures: Path, tmp_path: Path) -> None:
    expected = load(pictures, write_csv(tmp_path / "labels.csv", ROWS)).fingerprint
    for name, delimiter in (("semicolons.csv", ";"), ("tabs.tsv", "\t")):
        lines = [delimiter.join(row) for row in [("image", "label", "patient"), *ROWS]]
        (tmp_path / name).write_text("\ufeff" + "\n".join(lines) + "\n\n")
        assert load(pictures, tmp_path / name).fingerprint == expected


def test_parquet_says_the_same_as_the_csv(pictures: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    names, labels, groups = zip(*ROWS, strict=True)
    numbers = [{"cat": 10, "dog": 2}[label] for label in labels]
    table = pyarrow.table({"file": names, "kind": numbers, "patient": groups, "unused": [None] * 6})
    parquet.write_table(table, tmp_path / "labels.parquet")
    columns = {"image_column": "file", "label_column": "kind", "group_column": "patient"}
    data = load(pictures, tmp_path / "labels.parquet", **columns)
    assert data.classes == ("2", "10")
    texts = [(name, str(number), group) for name, number, group in zip(names, numbers, groups, strict=True)]
    same = write_csv(tmp_path / "labels.csv", texts, ("file", "kind", "patient"))
    assert load(pictures, same, **columns).fingerprint == data.fingerprint


def test_whole_numbers_beside_missing_ones_stay_whole_numbers_and_missing_ones_are_empty(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"image": ["x", "y", "z"], "label": [1.0, None, float("nan")], "g": [1.5, 2.0, 3.0]})
    parquet.write_table(table, tmp_path / "t.parquet")
    found = read_labels(DataConfig(dataset="folder", labels=str(tmp_path / "t.parquet"), group_column="g"))
    assert (found.labels, found.groups) == (["1", "", ""], ["1.5", "2", "3"])
    assert found.place(1) == "row 2"


def test_a_table_that_is_not_there_or_of_another_kind_is_named(pictures: Path, tmp_path: Path) -> None:
    error = refusal(pictures, tmp_path / "labels.csv")
    assert error.message == f"there is no file of labels {tmp_path / 'labels.csv'}"
    assert error.hint == f"{FORMS}; if it moved together with the images, --data FOLDER finds it"
    (tmp_path / "labels.xlsx").write_bytes(b"PK")
    assert refusal(pictures, tmp_path / "labels.xlsx").message == (
        f"{tmp_path / 'labels.xlsx'} ends in '.xlsx', which is not a format of tables. Choices: .csv, .tsv, .txt, .parquet, .pq."
    )


@pytest.mark.parametrize("column", ["image", "label", "group"])
def test_an_unknown_column_is_refused_with_the_columns_there_are(column: str, pictures: Path, tmp_path: Path) -> None:
    error = refusal(pictures, write_csv(tmp_path / "labels.csv", ROWS), **{f"{column}_column": "Image"})
    assert error.message == (
        f"{tmp_path / 'labels.csv'} has no column 'Image'. Did you mean 'image'? Choices: image, label, patient."
    )
    assert error.hint == f"name the column: --{column}-column NAME"


def test_a_parquet_file_that_is_none_or_has_other_columns_is_refused(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = tmp_path / "labels.parquet"
    table.write_text("image,label\n")
    error = refusal(pictures, table)
    assert error.message.startswith(f"{table} is not a complete Parquet file: ")
    assert "\n" not in error.message
    assert error.hint == FORMS
    parquet.write_table(pyarrow.table({"file": ["x"], "label": [["a", "list"]]}), table)
    assert refusal(pictures, table).message == f"{table} has no column 'image'. Choices: file, label."
    error = refusal(pictures, table, image_column="file")
    assert error.message == (
        f"{table}: column 'label' must contain text or numbers, but contains list. Images with several labels are not supported: "
        "a network predicts one class for each image"
    )
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    error = refusal(pictures, table)
    assert error.message == f"{table} needs the package pyarrow, which is not installed"
    assert error.hint == "pip install 'nas-under-budget[parquet]', or save it as a CSV"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", " is empty"),
        (b"image,label\n", " has no rows"),
        (b"image,label\na/one.png,cat\na/two.png\n", ", line 3: the header has 2 columns, but this line has 1"),
        (b"image,label\na/one.png,cat\n\n\na/two.png,cat\n", ", line 3: the header has 2 columns, but this line has 0"),
        (b"\xff\xfe\x00", " is not a CSV in UTF-8: "),
    ],
)
def test_a_csv_that_is_none_is_refused(content: bytes, message: str, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    assert refusal(pictures, tmp_path / "labels.csv").message.startswith(f"{tmp_path / 'labels.csv'}{message}")


def test_labels_for_missing_files_are_counted_and_named(pictures: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "labels.csv", [*ROWS, *((f"c/{i}.png", "cat", "p9") for i in range(7))])
    error = refusal(pictures, table)
    lines = error.message.splitlines()
    assert lines[0] == f"7 of 13 rows of {table} name an image that is not in {pictures}:"
    assert lines[1] == "  line 8: c/0.png"
    assert lines[-1] == "  and 2 more"
    assert error.hint == "check --data and --image-column, or skip these rows with --skip-bad-images"
    data = load(pictures, table, skip_bad_images=True)
    assert (len(data.train), data.skipped) == (6, 7)


def test_rows_that_all_miss_their_images_are_refused_even_where_some_may_be_left_out(pictures: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "labels.csv", [(f"scans/{image}", label, group) for image, label, group in ROWS])
    error = refusal(pictures, table, skip_bad_images=True)
    assert error.message.splitlines()[0] == f"6 of 6 rows of {table} name an image that is not in {pictures}:"
    assert error.hint == "check --data and --image-column"


def test_files_without_labels_are_counted_and_named(pictures: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "labels.csv", ROWS[:4])
    error = refusal(pictures, table)
    assert error.message.splitlines() == [
        f"2 of 6 images in {pictures} have no row in {table}:",
        "  b/five.png",
        "  b/six.png",
    ]
    assert error.hint == "label them, or skip these images with --skip-bad-images"
    data = load(pictures, table, skip_bad_images=True)
    assert (values(data), data.skipped) == ([10, 30, 20, 40], 2)


def test_rows_without_a_label_are_counted_and_named_and_without_a_group_never_skipped(pictures: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "labels.csv", [*ROWS[:5], ("b/six.png", " ", "p3")])
    assert refusal(pictures, table).message.splitlines() == [f"1 of 6 rows of {table} have no label:", "  line 7: b/six.png"]
    data = load(pictures, table, skip_bad_images=True)
    assert (values(data), data.skipped) == ([10, 30, 20, 50, 40], 1)
    write_csv(table, [*ROWS[:5], ("b/six.png", "dog", "")])
    error = refusal(pictures, table, group_column="patient", skip_bad_images=True)
    assert error.message.splitlines() == [f"1 of 6 rows of {table} have no group:", "  line 7: b/six.png"]


def test_an_image_with_two_rows_is_refused(pictures: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "labels.csv", [*ROWS, ("one", "dog", "p1")])
    for skip in (False, True):
        error = refusal(pictures, table, skip_bad_images=skip)
        assert error.message == f"{table}: line 2 and line 8 name the same image, {pictures / 'a/one.png'}"


def test_a_name_that_several_images_have_is_refused_and_a_path_is_not(pictures: Path, tmp_path: Path) -> None:
    Image.new("L", (12, 12), 70).save(pictures / "b" / "one.png")
    Image.new("L", (12, 12), 80).save(pictures / "one.png")
    rows = [*ROWS, ("b/one.png", "cat", "p4"), ("one.png", "dog", "p4")]
    assert values(load(pictures, write_csv(tmp_path / "labels.csv", rows))) == [10, 30, 20, 50, 40, 70, 60, 80]
    table = write_csv(tmp_path / "loose.csv", [("one", "cat", "p1")])
    assert refusal(pictures, table).message == f"{table}, line 2: 'one' could be a/one.png and b/one.png"


@pytest.mark.parametrize(
    "ordered",
    [
        ["2", "10"],
        ["1.0", "2.0", "10.0"],
        ["-2", "-1", "3"],
        ["1.5", "2", "10.5", "1e3"],
        ["-.5", "+1.", "0010", "11"],
        ["1", "10", "2", "nan"],
        ["1", "10", "2", "x"],
        ["1", "10", "2", "3-4"],
    ],
)
def test_classes_are_in_the_order_of_their_numbers_where_all_are_numbers(ordered: list[str]) -> None:
    assert in_order(ordered[::-1]) == ordered


@pytest.mark.parametrize("names", [("1", "01", "2"), ("2", "01", "1"), ("01", "2", "1")])
def test_classes_that_are_equal_as_numbers_have_an_order_all_the_same(names: Sequence[str]) -> None:
    assert in_order(names) == ["01", "1", "2"]


def test_copies_of_one_group_are_kept_together_and_not_warned_of(pictures: Path, tmp_path: Path) -> None:
    shutil.copyfile(pictures / "a" / "one.png", pictures / "a" / "two.png")
    table = write_csv(
        tmp_path / "labels.csv", [(name, "cat" if name == "a/two.png" else label, group) for name, label, group in ROWS]
    )
    assert load(pictures, table, group_column="patient").copies() == []  # both are p1's
    assert load(pictures, table).copies()[0].startswith("1 of 6 training images are exact copies of others")


def test_a_number_that_is_missing_is_no_class_of_its_own(pictures: Path, tmp_path: Path) -> None:
    labels = ["1.0", "nan", "10.0", "2.0", "1.0", "2.0"]
    table = write_csv(tmp_path / "labels.csv", [(name, label, "") for (name, *_), label in zip(ROWS, labels, strict=True)])
    assert "1 of 6 rows of" in refusal(pictures, table).message
    assert load(pictures, table, skip_bad_images=True).classes == ("1.0", "2.0", "10.0")
    words = write_csv(tmp_path / "words.csv", [(name, "none" if i % 2 else "some", "") for i, (name, *_) in enumerate(ROWS)])
    assert load(pictures, words).classes == ("none", "some")


def test_a_column_that_is_there_twice_is_refused(pictures: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "labels.csv", [(*row[:2], row[1]) for row in ROWS], header=("image", "label", "label"))
    assert refusal(pictures, table).message == f"{table} has 2 columns 'label'"


def test_files_beside_labelled_images_are_counted(pictures: Path, tmp_path: Path) -> None:
    (pictures / "notes.md").touch()
    data = load(pictures, write_csv(pictures / "labels.csv", ROWS))
    assert data.counts == "6 images read; 1 file of the folder is skipped: .md (1)"


def test_a_single_class_is_refused(pictures: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "labels.csv", [(image, "cat", group) for image, _, group in ROWS])
    assert refusal(pictures, table).message == (
        f"a classifier needs at least two classes, but the labels in column 'label' of {table} are: cat"
    )


def test_unreadable_images_are_left_out_with_their_labels_and_groups(pictures: Path, tmp_path: Path) -> None:
    (pictures / "a" / "three.png").write_bytes(b"no image at all")
    table = write_csv(tmp_path / "labels.csv", ROWS)
    assert refusal(pictures, table).message.startswith("1 of 6 images cannot be read:")
    data = load(pictures, table, group_column="patient", skip_bad_images=True)
    assert values(data) == [10, 20, 50, 40, 60]
    assert data.train.labels.tolist() == [0, 1, 0, 1, 1]
    assert data.train.groups.tolist() == [0, 0, 2, 1, 2]
    assert data.skipped == 1
    (pictures / "a" / "one.png").write_bytes(b"no image at all")
    (pictures / "b" / "five.png").write_bytes(b"no image at all")
    assert refusal(pictures, table, skip_bad_images=True).message == "no image of class 'cat' can be read"


def test_a_table_moves_along_with_its_folder(pictures: Path, tmp_path: Path) -> None:
    config = DataConfig(dataset="folder", folder="/old", labels="/old/meta/labels.csv")
    assert moved(config, "/new").labels == "/new/meta/labels.csv"
    assert moved(config.model_copy(update={"labels": "/other/labels.csv"}), "/new").labels == "/other/labels.csv"
    assert moved(DataConfig(dataset="folder", folder="/old"), "/new") == DataConfig(dataset="folder", folder="/new")


def test_a_table_beside_the_folder_is_found_beside_it_again_where_it_is_not_as_before(pictures: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "labels.csv", ROWS)
    config = DataConfig(dataset="folder", folder=str(pictures), labels=str(table))
    before = load_dataset(config)
    new = tmp_path / "new"
    new.mkdir()
    pictures.rename(new / "pictures")
    assert load_dataset(moved(config, str(new / "pictures"))).fingerprint == before.fingerprint
    table.rename(new / "labels.csv")
    there = moved(config, str(new / "pictures"))
    assert there.labels == str(new / "labels.csv")
    assert load_dataset(there).fingerprint == before.fingerprint


def test_images_are_decoded_again_where_a_label_or_a_group_changed(pictures: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "labels.csv", ROWS)
    first = load(pictures, table, group_column="patient")
    write_csv(table, [("a/one.png", "dog", "p1"), *ROWS[1:]])
    second = load(pictures, table, group_column="patient")
    np.testing.assert_array_equal(second.train.images, first.train.images)
    assert second.train.labels.tolist() == [1, 0, 1, 0, 1, 1]
    assert second.fingerprint != first.fingerprint

"""The CSV that is handed in: its columns, its order, its classes; and what single images are taken for."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.config import DataConfig
from nas.data.datasets import load_dataset
from nas.errors import DataError
from nas.paths import StudyPaths
from nas.predict.table import Form, arranged, labels_for, read_sample, verify, write_rows
from tests.conftest import Done


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    """Fifty of the digits, with IDs that are words."""
    test = load_dataset(DataConfig(dataset="digits")).test
    file = tmp_path / "digits.npz"
    np.savez(file, data=test.images[:50], ids=np.array([f"image-{i:02d}" for i in range(50)]))
    return file


def test_rows_are_in_the_order_of_the_sample(tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_text("\ufeffimage,class\nc,0\na,0\nb,0\n", encoding="utf-8")
    form = read_sample(tmp_path / "sample.csv")
    assert form == Form("image", "class", ("c", "a", "b"), frozenset("0"), source=str(tmp_path / "sample.csv"))
    assert arranged(["a", "b", "c"], form) == [2, 0, 1]
    assert arranged(["a", "b"], Form()) == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("id\n1\n", "has 1: id"),
        ("id,label,more\n1,2,3\n", "has 3: id, label, more"),
        ("id,label\n1\n", "line 2: the header has 2 columns, but this line has 1"),
        ("id,label\n1,0\n1,0\n", "has the ID '1' more than once"),
    ],
)
def test_sample_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sample.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_sample(tmp_path / "sample.csv")


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        (["b", "a"], "b,0\na,0\n\n\n"),
        (["b", "a"], "b.jpg,0\na.JPG,0\n"),
        (["b.png", "a.png"], "b,0\na,0\n"),
        (["2", "1"], "002,0\n001,0\n"),
        (["002", "001"], "2.png,0\n1.png,0\n"),
        (["0", "00x"], "000.png,0\n00x,0\n"),
    ],
    ids=["empty lines", "with endings", "without endings", "zeros in front", "none in front", "zero"],
)
def test_ids_are_matched_without_endings_and_zeros_and_written_as_the_sample_has_them(
    ids: list[str], rows: str, tmp_path: Path
) -> None:
    (tmp_path / "sample.csv").write_text("\ufeffid;label\n" + rows.replace(",", ";"))
    form = read_sample(tmp_path / "sample.csv")
    assert (form.id_column, form.delimiter) == ("id", ";")
    assert arranged(ids, form) == [0, 1]
    assert form.order == tuple(line.partition(",")[0] for line in rows.split())


@pytest.mark.parametrize(
    ("classes", "sample", "names", "expected"),
    [
        (["cat", "dog"], {"cat"}, False, ["cat", "dog"]),
        (["cat", "dog"], {"0"}, False, ["0", "1"]),
        (["cat", "dog"], {"0"}, True, ["cat", "dog"]),
        (["cat", "dog"], set(), False, ["0", "1"]),
        (["1", "2", "3"], {"3"}, False, ["1", "2", "3"]),
        (["1", "2", "3"], {"0"}, False, ["0", "1", "2"]),
    ],
)
def test_labels_are_written_as_the_sample_has_them(
    classes: list[str], sample: set[str], names: bool, expected: list[str]
) -> None:
    assert labels_for(Form(labels=frozenset(sample)), classes, names) == expected


def test_labels_that_no_class_has_are_refused() -> None:
    with pytest.raises(DataError) as refused:
        labels_for(Form("id", "label", labels=frozenset({"7", "cat"}), source="sample.csv"), ["cat", "dog"], names=False)
    assert refused.value.message == (
        "sample.csv: column 'label' holds 7: neither the network's classes (cat, dog) nor their indices from 0 to 1"
    )


def test_sample_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_sample(tmp_path / "nowhere.csv")
    (tmp_path / "sample.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="is not a CSV in UTF-8"):
        read_sample(tmp_path / "sample.csv")


def test_sample_of_other_images_is_refused_with_some_of_them() -> None:
    form = Form(order=("a", "b", "x", "y", "z", "w"), source="sample.csv")
    with pytest.raises(DataError) as refused:
        arranged(["a", "b", "c"], form)
    assert refused.value.message == (
        "sample.csv and the test set have different IDs; only in the sample: 4 (x, y, z, …), only in the test set: 1 (c)"
    )
    with pytest.raises(DataError, match="the test set has the ID 'a' more than once"):
        arranged(["a", "a"], Form())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "0"), ("b", "1")], None),
        ([("b", "1"), ("a", "0")], "its 2 IDs or their order differ from the 2 expected"),
        ([("a", "0")], "its 1 IDs or their order differ from the 2"),
        ([("a", "0"), ("b", "7")], "'7' is not a class. Choices: 0, 1"),
    ],
)
def test_file_is_read_back(tmp_path: Path, rows: list[tuple[str, str]], message: str | None) -> None:
    file = tmp_path / "out.csv"
    write_rows(file, ("ID", "Labels"), rows)
    if message is None:
        verify(file, Form(), ["a", "b"], ["0", "1"])
        return
    with pytest.raises(DataError, match=message):
        verify(file, Form(), ["a", "b"], ["0", "1"])
    write_rows(file, ("ID", "Class"), [("a", "0")])
    with pytest.raises(DataError, match="the columns are"):
        verify(file, Form(), ["a"], ["0"])


def test_submission_like_a_sample(nas: Callable[..., Done], study: StudyPaths, test_set: Path, tmp_path: Path) -> None:
    plain, sample, out, shares = (tmp_path / f"{name}.csv" for name in ("plain", "sample", "out", "shares"))
    assert nas("submit", str(test_set), "--study", "tiny", "--output", str(plain), "--device", "cpu").code == 0
    ids = [f"image-{i:02d}" for i in np.random.default_rng(0).permutation(50)]
    sample.write_text("file,digit\n" + "".join(f"{name},0\n" for name in ids))
    files = ("--like", str(sample), "--output", str(out), "--probabilities", str(shares))
    done = nas("submit", str(test_set), "--study", "tiny", *files, "--device", "cpu")
    assert done.code == 0
    rows = rows_of(out)
    assert rows[0] == ["file", "digit"]
    assert [row[0] for row in rows[1:]] == ids
    assert dict(rows_of(plain)[1:]) == dict(rows[1:])
    assert [(row[0], str(np.argmax([float(share) for share in row[1:]]))) for row in rows_of(shares)[1:]] == [
        tuple(row) for row in rows[1:]
    ]


def test_what_was_written_is_read_back_before_it_counts(
    nas: Callable[..., Done], study: StudyPaths, test_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shuffle(path: Path, header: list[str], rows: list[tuple[str, str]], delimiter: str) -> None:
        write_rows(path, header, rows[::-1])

    monkeypatch.setattr("nas.predict.submission.write_rows", shuffle)
    done = nas("submit", str(test_set), "--study", study.name, "--device", "cpu")
    assert done.code == 1
    assert "their order differ" in done.err
    assert not json.loads(nas("runs", "--study", study.name, "--json").out)["submissions"]


def test_names_columns_and_probabilities(nas: Callable[..., Done], study: StudyPaths, test_set: Path, tmp_path: Path) -> None:
    out, shares = tmp_path / "out.csv", tmp_path / "shares.csv"
    options = ["--id-column", "file", "--label-column", "digit", "--names", "--probabilities", str(shares)]
    done = nas("submit", str(test_set), "--study", "tiny", "--output", str(out), "--device", "cpu", *options)
    assert done.code == 0
    labels = dict(rows_of(out)[1:])
    assert rows_of(out)[0] == ["file", "digit"]
    head, *rows = rows_of(shares)
    assert head == ["file", *map(str, range(10))]
    for name, *values in rows:
        probabilities = [float(value) for value in values]
        assert sum(probabilities) == pytest.approx(1.0, abs=1e-4)
        assert labels[name] == head[1:][int(np.argmax(probabilities))]


def test_probabilities_are_not_written_over_the_submission(
    nas: Callable[..., Done], study: StudyPaths, test_set: Path, tmp_path: Path
) -> None:
    typed = ["submit", str(test_set), "--study", "tiny", "--device", "cpu", "--output", "out.csv", "--probabilities"]
    done = nas(*typed, str(tmp_path / "out.csv"))
    assert done.code == 1
    assert "Error: the submission and --probabilities would both be written to out.csv\n" in done.err
    assert not (tmp_path / "out.csv").exists()
    assert "Next:  choose a file in it with --probabilities\n" in nas(*typed, str(tmp_path)).err
    done = nas("submit", str(test_set), "--study", "tiny", "--like", "sample.csv", "--id-column", "file")
    assert done.code == 1
    assert done.err.startswith("Error: --like uses the columns of sample.csv, and cannot be combined with --id-column\n")


def test_statistics_of_the_test_set_come_with_their_effect(nas: Callable[..., Done], study: StudyPaths, test_set: Path) -> None:
    done = nas("submit", str(test_set), "--study", "tiny", "--adapt-norm", "--device", "cpu", "--json")
    adapted = json.loads(done.out)["adapted"]
    assert 0 <= adapted["changed"] <= 50
    assert 0 < adapted["confidence_before"] < 1
    assert 0 < adapted["confidence_after"] < 1
    words = nas("submit", str(test_set), "--study", "tiny", "--adapt-norm", "--device", "cpu").out
    assert f"changed {adapted['changed']} of 50 predictions" in words


def test_single_images_have_their_most_probable_classes(nas: Callable[..., Done], study: StudyPaths, tmp_path: Path) -> None:
    test = load_dataset(DataConfig(dataset="digits")).test
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, image in zip(files, test.images, strict=False):
        Image.fromarray(image[:, :, 0]).save(file)
    found = json.loads(nas("predict", *map(str, files), "--study", "tiny", "--top", "4", "--device", "cpu", "--json").out)
    assert [one["image"] for one in found] == list(map(str, files))
    for one in found:
        shares = list(one["classes"].values())
        assert len(shares) == 4
        assert shares == sorted(shares, reverse=True)
    submitted = tmp_path / "test.npz"
    np.savez(submitted, data=test.images[:3])
    nas("submit", str(submitted), "--study", "tiny", "--output", str(tmp_path / "out.csv"), "--device", "cpu")
    assert [next(iter(one["classes"])) for one in found] == [row[1] for row in rows_of(tmp_path / "out.csv")[1:]]
    line = nas("predict", str(files[0]), "--study", "tiny", "--device", "cpu").out
    assert line.startswith(f"{files[0]}: {next(iter(found[0]['classes']))} ")


def test_images_of_a_folder_are_named_in_a_csv(nas: Callable[..., Done], study: StudyPaths, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(2):
        Image.new("L", (8, 8), 100 * i).save(tmp_path / "images" / f"{i}.png")
    options = ("--study", "tiny", "--device", "cpu", "--output", str(tmp_path / "out.csv"))
    found = json.loads(nas("predict", str(tmp_path / "images"), *options, "--top", "2", "--json").out)
    header, *rows = rows_of(tmp_path / "out.csv")
    assert header == ["image", "class 1", "probability 1", "class 2", "probability 2"]
    assert (
        [row[0] for row in rows] == [one["image"] for one in found] == [str(tmp_path / "images" / f"{i}.png") for i in range(2)]
    )
    assert [row[1::2] for row in rows] == [list(one["classes"]) for one in found]
    assert float(rows[0][2]) == pytest.approx(next(iter(found[0]["classes"].values())), abs=1e-6)


def test_a_test_set_darker_than_all_training_images_is_warned_of(
    nas: Callable[..., Done], study: StudyPaths, tmp_path: Path
) -> None:
    np.save(tmp_path / "dark.npy", np.full((2, 8, 8), 16, np.uint8))  # as scikit-learn's digits are, up to 16
    done = nas("submit", str(tmp_path / "dark.npy"), "--study", "tiny", "--device", "cpu", "--output", str(tmp_path / "out.csv"))
    assert done.code == 0
    assert "Warning: all pixels of dark.npy are at most 16, but the mean of the training images is 78. " in done.err


def test_files_that_are_not_images_are_refused(nas: Callable[..., Done], study: StudyPaths, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    assert "text.png cannot be read as an image: " in nas("predict", str(tmp_path / "text.png"), "--study", "tiny").err
    assert "there is no file " in nas("predict", str(tmp_path / "nowhere.png"), "--study", "tiny").err
    (tmp_path / "empty").mkdir()
    assert "empty contains no image; image files end in " in nas("predict", str(tmp_path / "empty"), "--study", "tiny").err
    done = nas("predict", str(tmp_path / "text.png"), "--study", "tiny", "--top", "0")
    assert done.err == "Error: --top must be at least 1, but is 0\n"


def test_the_name_of_an_image_that_is_not_utf_8_is_written_as_it_is(tmp_path: Path) -> None:
    name = b"caf\xe9".decode(errors="surrogateescape")
    write_rows(tmp_path / "out.csv", ("ID", "Labels"), [(name, "0")])
    verify(tmp_path / "out.csv", Form(), [name], ["0"])
    assert (tmp_path / "out.csv").read_bytes() == b"ID,Labels\ncaf\xe9,0\n"

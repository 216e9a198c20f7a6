"""What an audit finds in a data set, in every format, and how twins stay on one side of a split."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nas.data.datasets
from nas.config import DataConfig
from nas.data import twins
from nas.data.audit import Audit, audit
from nas.data.datasets import load_dataset
from nas.data.splits import split
from nas.data.twins import find_twins
from nas.errors import DataError
from nas.report.audit import findings
from tests.conftest import Done
from tests.data.test_formats import FORMATS, Parts


def images_of(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """uint8 (N, H, W, 3), smooth, no two of which are alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 5, 5, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC)) for one in coarse])


def changed(image: np.ndarray, kind: str, **how: object) -> np.ndarray:
    """As a file of that kind gives it back."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **how)
    return np.asarray(Image.open(file))


# --------------------------------------------------------------------------------------------------------------- twins


def test_twins_are_those_whose_pixels_correlate_also_in_the_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "BLOCK", 7)  # images in several blocks
    images = images_of(40)
    images[11] = images[2]
    images[12] = changed(images[3], "JPEG", quality=50)
    images[33] = changed(np.ascontiguousarray(images[4][:, ::-1]), "JPEG", quality=75)
    images[39] = images[5] // 2 + 60  # darker, with less contrast
    images[20], images[21] = 90, 91  # of one colour
    found = find_twins(images)
    assert np.flatnonzero(found.same != np.arange(40)).tolist() == [11]
    assert found.same[11] == 2
    assert {tuple(pair) for pair in found.pairs.tolist()} == {(3, 12), (4, 33), (5, 39)}
    assert [tuple(pair) for pair in found.pairs[found.mirrored].tolist()] == [(4, 33)]
    for (a, b), said, mirrored in zip(found.pairs, found.correlation, found.mirrored, strict=True):
        other = images[b][:, ::-1] if mirrored else images[b]
        assert said == pytest.approx(np.corrcoef(images[a].ravel(), other.ravel())[0, 1], abs=1e-5)
    assert (np.diff(found.correlation) <= 0).all()


def test_of_too_many_twins_the_most_alike_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    one = images_of(1)[0].astype(int)
    noise = np.random.default_rng(0).integers(-1, 2, (30, *one.shape)) * np.arange(30)[:, None, None, None]
    images = np.clip(one + noise, 0, 255).astype(np.uint8)
    all_of_them = find_twins(images)
    monkeypatch.setattr(twins, "MOST_PAIRS", 50)
    monkeypatch.setattr(twins, "BLOCK", 8)
    few = find_twins(images)
    assert (all_of_them.complete, few.complete) == (True, False)
    assert 20 < len(few.pairs) <= 50 < len(all_of_them.pairs)
    assert few.correlation.mean() > all_of_them.correlation.mean()


def test_chains_of_twins_and_given_groups_become_groups() -> None:
    found = twins.Twins(
        same=np.array([0, 1, 2, 0, 4, 5]),
        pairs=np.array([[0, 1], [1, 2]]),
        correlation=np.array([0.99, 0.96], np.float32),
        mirrored=np.zeros(2, bool),
        complete=True,
    )
    assert found.groups().tolist() == [0, 0, 0, 0, 1, 2]
    assert found.groups(np.array([0, 1, 2, 3, 4, 4])).tolist() == [0, 0, 0, 0, 1, 1]


# --------------------------------------------------------------------------------------------------------------- audits


@pytest.mark.parametrize("name", FORMATS)
def test_twins_are_found_in_every_format_within_and_across_splits(name: str, tmp_path: Path) -> None:
    grey = images_of(36, size=8)[..., 0]
    labels = ["eight", "nine", "seven"] * 12
    parts: Parts = {
        part: (grey[chosen].copy(), labels[chosen])
        for part, chosen in {"train": slice(18), "val": slice(18, 27), "test": slice(27, 36)}.items()
    }
    parts["train"][0][4] = parts["train"][0][3]  # of two classes
    parts["val"][0][0] = parts["train"][0][9] // 2
    parts["test"][0][0], parts["test"][0][2] = parts["train"][0][4], parts["train"][0][5][:, ::-1]
    found, shown = audit(DataConfig(dataset="folder", folder=str(FORMATS[name](tmp_path / "data", parts))))
    assert found.all.images == {"training": 18, "validation": 9, "test": 9}
    assert (found.all.identical, found.all.near, found.other_class) == (3, 4, 1)
    assert found.across == {"validation": 1, "test": 2}
    assert {name: counts.images["training"] for name, counts in found.classes.items()} == dict.fromkeys(sorted(set(labels)), 6)
    assert [(pair.splits[1], pair.identical, pair.mirrored) for pair in found.pairs[:2]] == [
        ("training", True, False),
        ("test", True, False),
    ]
    assert {(pair.splits[1], pair.identical, pair.mirrored) for pair in found.pairs[2:]} == {
        ("test", False, True),
        ("validation", False, False),
    }
    assert shown.shape == (4, 2, 8, 8, 3)
    assert (shown[0, 0] == shown[0, 1]).all()
    assert "2 images of 9 in test (22.2%) have a twin among the training images" in " ".join(text for text, _ in findings(found))


def write(folder: Path, images: np.ndarray, name: Callable[[int], str], **how: object) -> None:
    """A class."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / name(i), **how)


def audited(folder: Path, test: Path | None = None) -> tuple[Audit, str]:
    found, _ = audit(DataConfig(dataset="folder", folder=str(folder)), test)
    return found, "\n".join(f"{text}; {advice}" for text, advice in findings(found))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 30 images each, in lossless files whose names say nothing."""
    for name, images in zip(("cat", "dog"), np.split(images_of(60, seed=1), 2), strict=True):
        write(tmp_path / "set" / "train" / name, images, lambda i, name=name: f"{name}{i:03}.png")
    return tmp_path / "set"


def test_nothing_is_found_where_nothing_is(folder: Path) -> None:
    found, said = audited(folder)
    assert (said, found.pairs, found.damaged, found.sizes, found.together) == ("", [], {}, {"32×32": 60}, 1)
    assert found.kinds == {"training": {"PNG": 60}}


def test_damaged_images_and_sizes_are_named(folder: Path) -> None:
    (folder / "train" / "cat" / "broken.png").write_bytes(b"no picture")
    write(folder / "train" / "dog", images_of(1, size=48, seed=2), lambda i: "large.png")
    found, said = audited(folder)
    assert [Path(place).name for place in found.damaged] == ["broken.png"]
    assert found.sizes == {"32×32": 60, "48×48": 1}
    assert "1 image cannot be read, first " in said
    assert "images have 2 sizes; 60 have the most frequent one, 32×32" in said


@pytest.mark.parametrize(
    ("kind", "how", "said"),
    [
        ("JPEG", {"quality": 95}, "JPEG, quality 95"),
        ("JPEG", {"quality": 75}, "JPEG, quality 75"),
        ("JPEG", {"quality": 50}, "JPEG, quality 50"),
        ("WEBP", {"lossless": True}, "WEBP, lossless"),
        ("WEBP", {"quality": 80}, "WEBP, lossy"),
    ],
)
def test_a_test_set_that_was_compressed_otherwise_is_noticed(
    kind: str, how: dict[str, object], said: str, folder: Path, tmp_path: Path
) -> None:
    write(tmp_path / "given", images_of(20, seed=3), lambda i: f"{i}.{kind.lower()}", format=kind, **how)
    found, text = audited(folder, tmp_path / "given")
    assert found.kinds == {"training": {"PNG": 60}, str(tmp_path / "given"): {said: 20}}
    assert (f"compressed in another way than training files: 20 {said}; training: 60 PNG" in text) == ("lossless" not in said)


def test_training_images_are_no_test_set(folder: Path, tmp_path: Path) -> None:
    images = images_of(6)
    np.savez(tmp_path / "other.npz", train_images=images[:3], val_images=images[3:])
    with pytest.raises(DataError, match=r"other\.npz has no test images; its splits are: train, val$"):
        audited(folder, tmp_path / "other.npz")


def test_classes_whose_files_differ_are_noticed(folder: Path) -> None:
    for file in (folder / "train" / "dog").iterdir():
        Image.open(file).save(file.with_suffix(".jpg"), quality=90)
        file.unlink()
    assert "100% of the images of 'dog' are compressed with loss, and 0% of 'cat'" in audited(folder)[1]


@pytest.mark.parametrize("by", ["name", "serial"])
def test_groups_that_nobody_named_are_suggested(by: str, folder: Path) -> None:
    for i, file in enumerate(sorted((folder / "train").glob("*/*"))):
        if by == "name":
            file.rename(file.with_name(f"patient{i % 12}_{i}.png"))
        else:
            exif = Image.Exif()
            exif[0x8769] = {0xA431: f"body {i % 6}"}
            Image.open(file).save(file.with_suffix(".jpg"), exif=exif)
            file.unlink()
    found, said = audited(folder)
    assert [(one.groups, one.images) for one in found.suggestions] == [(12, 5) if by == "name" else (6, 10)]
    assert ("patient" if by == "name" else "serial number") in said


def test_doctor_audits_and_shows_pairs(nas: Callable[..., Done], folder: Path) -> None:
    write(folder / "test" / "cat", images_of(60, seed=1)[29:31], lambda i: f"{i}.bmp")
    write(folder / "test" / "dog", images_of(1, seed=5), lambda i: f"{i}.png")
    done = nas("doctor", "--data", str(folder))
    assert "2 images of 3 in test (66.7%) have a twin among the training images" in done.out
    assert "1 pair of twins has two labels" in done.out
    assert Path("nas-audit.html").read_text().count("<img ") == 4
    found = json.loads(nas("doctor", "--data", str(folder), "--json").out)["audit"]
    assert found["across"] == {"test": 2}
    assert found["pairs"][0]["labels"] == ["dog", "cat"]
    assert found["findings"][0]["next"].startswith("remove copies")
    Path("nas-audit.html").unlink()
    Path("nas-audit.html").mkdir()
    done = nas("doctor", "--data", str(folder))
    assert "1 pair of twins has two labels" in done.out
    assert "nas-audit.html cannot be written: Is a directory" in done.err
    assert nas("doctor", "--test", "x").err.startswith("Error: an audit needs a folder or file of images, but --data names none")
    assert nas("doctor", "--data", "nowhere").err.startswith("Error: there is no folder ")


# --------------------------------------------------------------------------------------------------- twins and the split


def test_twins_stay_on_one_side_of_the_split(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in list((folder / "train").glob("*/*")):
        Image.open(file).save(file.with_name(f"again-{file.stem}.jpg"), quality=85)
    plain = DataConfig(dataset="folder", folder=str(folder), validation=0.2)
    apart = plain.model_copy(update={"group_duplicates": True})
    dataset = load_dataset(apart)
    assert dataset.train.groups is not None
    assert len(dataset.groups) == 60
    assert dataset.fingerprint != load_dataset(plain).fingerprint
    assert twins_apart(dataset.train.groups, split(dataset, apart).validation) == 0
    assert twins_apart(dataset.train.groups, split(load_dataset(plain), plain).validation) > 10
    with monkeypatch.context() as patch:
        patch.setattr(nas.data.datasets, "find_twins", None)  # it is in the cache
        assert (load_dataset(apart).train.groups == dataset.train.groups).all()
    (folder / "train" / "cat" / "cat005.png").rename(folder / "train" / "cat" / "zzz.png")
    train = load_dataset(apart).train
    assert train.groups is not None
    assert (train.groups == find_twins(train.images).groups()).all(), "the images are in another order"
    assert (train.groups != dataset.train.groups).any()


def twins_apart(groups: np.ndarray, validation: np.ndarray | None) -> int:
    """Groups that are on both sides."""
    assert validation is not None
    inside = np.isin(np.arange(len(groups)), validation)
    return len(np.intersect1d(groups[inside], groups[~inside]))


def test_images_of_one_kind_are_no_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.data.datasets, "MOST_TOGETHER", 0.04)
    with pytest.raises(DataError, match=r"would be one group, a chain of images that correlate by 0\.95 or more"):
        load_dataset(DataConfig(dataset="digits", group_duplicates=True))

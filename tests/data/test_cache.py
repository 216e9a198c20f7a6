"""Entries of the cache: whole or not there, found again, and shared."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.data.cache import entry_key, find_or_make
from nas.errors import DataError


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def maker(value: int) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        np.save(folder / "numbers.npy", np.full(3, value))
        return {"value": value}

    return make


def refuse(folder: Path) -> dict[str, Any]:
    raise AssertionError("made again")


def test_entry_is_made_once_and_then_found(cache: Path) -> None:
    made = find_or_make("things", "k1", maker(7))
    assert made.folder == cache / "things-k1"
    found = find_or_make("things", "k1", refuse)
    assert found == made
    assert found.meta()["value"] == 7
    assert found.array("numbers").tolist() == [7, 7, 7]
    assert isinstance(found.array("numbers"), np.memmap)


def test_writing_to_a_cached_array_does_not_change_the_file() -> None:
    entry = find_or_make("things", "k1", maker(7))
    numbers = entry.array("numbers")
    numbers[0] = 1
    assert entry.array("numbers").tolist() == [7, 7, 7]


def test_entry_that_was_cut_off_is_made_again(cache: Path) -> None:
    def cut_off(folder: Path) -> dict[str, Any]:
        np.save(folder / "numbers.npy", np.zeros(3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_or_make("things", "k1", cut_off)
    assert list(cache.iterdir()) == []
    assert find_or_make("things", "k1", maker(7)).meta()["value"] == 7


def test_of_two_that_make_the_same_entry_the_first_to_finish_wins(cache: Path) -> None:
    def slower(folder: Path) -> dict[str, Any]:
        find_or_make("things", "k1", maker(1))
        return maker(2)(folder)

    assert find_or_make("things", "k1", slower).meta()["value"] == 1
    assert [path.name for path in cache.iterdir()] == ["things-k1"]


def test_cache_that_cannot_be_written_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for place in ("file", "file/inside"):
        monkeypatch.setenv("NAS_CACHE", str(tmp_path / place))
        with pytest.raises(DataError) as refused:
            find_or_make("things", "k1", maker(7))
        assert refused.value.message.startswith(f"the cache of decoded images under {tmp_path / place} cannot be written: ")
        assert refused.value.hint == "free some space there, or set another folder with NAS_CACHE=FOLDER"


def test_a_full_disk_is_not_reported_as_a_data_error(cache: Path) -> None:
    def full(folder: Path) -> dict[str, Any]:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        find_or_make("things", "k1", full)
    assert list(cache.iterdir()) == []


def test_keys_differ_where_any_part_differs() -> None:
    keys = {entry_key(parts) for parts in (["a", "b"], ["ab"], ["a"], ["b", "a"], [], ["a", 1], ["a", 1.5])}
    assert len(keys) == 7
    assert entry_key(["a", 1]) == entry_key(["a", 1])


def test_entry_may_be_read_by_whoever_the_umask_lets(cache: Path) -> None:
    mask = os.umask(0o022)
    try:
        entry = find_or_make("things", "k1", maker(7))
    finally:
        os.umask(mask)
    assert stat.S_IMODE(entry.folder.stat().st_mode) == 0o755


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("recorded", [True, False], ids=["with sizes", "of an older version"])
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("train-images.npy", lambda file: os.truncate(file, 10)),
        ("train-labels.npy", Path.unlink),
        ("train-labels.npy", lambda file: file.write_bytes(b"")),
        ("train-images.npy", _flip),
        ("meta.json", lambda file: os.truncate(file, 10)),
        ("meta.json", Path.unlink),
    ],
    ids=["cut", "missing", "empty", "changed", "meta data cut", "meta data missing"],
)
def test_a_damaged_entry_is_made_again_with_one_line_of_notice(
    name: str, damage: Callable[[Path], Any], recorded: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    def make(folder: Path) -> dict[str, Any]:
        for kind in ("images", "labels"):
            np.save(folder / f"train-{kind}.npy", np.arange(1000))
        return {"value": 7}

    entry = find_or_make("things", "k1", make)
    if not recorded:
        (entry.folder / "meta.json").write_text('{"value": 7}')
    if damage is _flip and not recorded:
        return  # nothing says what it was
    damage(entry.folder / name)
    again = find_or_make("things", "k1", make)
    assert again.meta()["value"] == 7
    assert again.array("train-images").tolist() == again.array("train-labels").tolist() == list(range(1000))
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"the cache of decoded images is damaged and will be rebuilt: {entry.folder}: ")
    find_or_make("things", "k1", refuse)


def test_a_large_file_is_checked_at_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.data.cache.CHECKED_BYTES", 16)
    entry = find_or_make("things", "k1", maker(7))
    assert entry.damage() is None
    _flip(entry.folder / "numbers.npy")
    assert entry.damage() == "numbers.npy has changed since it was written"

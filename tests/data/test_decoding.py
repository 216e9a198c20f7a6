"""Image files become pixels, or are listed with what is wrong with them."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.config import DataConfig
from nas.data.cache import silent
from nas.data.datasets import load_dataset
from nas.data.decoding import bad_images_error, decode, decode_all, image_files
from nas.errors import DataError


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_image_is_decoded_to_bytes(mode: str, channels: int, tmp_path: Path) -> None:
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new("RGB", (10, 14), "white").convert(mode).save(path)
    decoded = decode(path, 8, channels)
    assert (decoded.shape, decoded.dtype) == ((8, 8, channels), np.uint8)
    assert decoded.min() > 250


def test_image_of_the_right_size_is_not_touched(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    np.testing.assert_array_equal(decode(tmp_path / "x.png", 16, 3), pixels)


def test_unreadable_images_are_listed_with_their_reasons_and_the_others_decoded(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        Image.new("L", (8, 8), i + 1).save(path)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(b"")
    paths[2].write_bytes(whole[:40])
    paths[3].unlink()
    out = np.zeros((5, 8, 8, 1), np.uint8)
    bad = decode_all(paths, out, silent, "decoding")
    assert [i for i, _ in bad] == [1, 2, 3]
    assert all(reason for _, reason in bad)
    assert (out[0, 0, 0, 0], out[4, 0, 0, 0]) == (1, 5)


def test_error_about_bad_images_names_at_most_five() -> None:
    bad = [(Path(f"{i}.png"), "broken") for i in range(6)]
    assert bad_images_error(bad[:5], 9).message.count("broken") == 5
    assert bad_images_error(bad, 9).message.endswith("\n  and 1 more")


def test_hidden_files_and_folders_are_no_images(tmp_path: Path) -> None:
    for name in ("cat.png", "._cat.png", ".ipynb_checkpoints/cat-checkpoint.png", "far/away/dog.JPG", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [Path(file.path).relative_to(tmp_path).as_posix() for file in image_files(str(tmp_path))] == [
        "cat.png",
        "far/away/dog.JPG",
    ]


@pytest.mark.parametrize("error", [KeyError("bad tile"), struct.error("unpack requires 4 bytes"), IndexError(), MemoryError()])
def test_an_error_of_any_kind_names_its_image_and_may_be_skipped(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "pictures"
    for name in ("a/0.png", "a/1.png", "b/0.png"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 90).save(pictures / name)
    opened = Image.open

    def broken(path: Path) -> Image.Image:
        if Path(path) == pictures / "a" / "0.png":
            raise error
        return opened(path)

    monkeypatch.setattr(Image, "open", broken)
    config = DataConfig(dataset="folder", folder=str(pictures))
    with pytest.raises(DataError, match=rf"1 of 3 images cannot be read:\n  {pictures / 'a' / '0.png'}: {type(error).__name__}"):
        load_dataset(config)
    assert load_dataset(config.model_copy(update={"skip_bad_images": True})).skipped == 1

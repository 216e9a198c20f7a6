"""Image files become pixels, or are listed with what is wrong with them."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas.data.cache import silent
from nas.data.decoding import RESIZE, bad_images_error, decode, decode_all
from tests.data.on_disk import load, refusal


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_image_is_decoded_to_bytes(mode: str, channels: int, tmp_path: Path) -> None:
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new("RGB", (10, 14), "white").convert(mode).save(path)
    decoded = decode(path, 8, channels)
    assert (decoded.shape, decoded.dtype) == ((8, 8, channels), np.uint8)
    assert decoded.min() > 250


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


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.linspace(0, 1, 64, dtype=np.float32), "its pixels are floating-point numbers of unknown range: "),
        (np.arange(64, dtype=np.int32) * 5000, "its pixels are from 0 to 315000, but 16 bits hold 0 to 65535: "),
        (np.arange(64, dtype=np.int32) - 1, "its pixels are from -1 to 62, but 16 bits hold 0 to 65535: "),
    ],
)
def test_images_of_unknown_value_range_are_refused(pixels: np.ndarray, reason: str, tmp_path: Path) -> None:
    Image.fromarray(pixels.reshape(8, 8)).save(tmp_path / "x.tif")
    ((_, said),) = decode_all([tmp_path / "x.tif"], np.zeros((1, 8, 8, 1), np.uint8), silent, "decoding")
    assert said == f"{reason}save it with 8 or 16 bits"


def test_error_about_bad_images_names_at_most_five() -> None:
    bad = [(Path(f"{i}.png"), "broken") for i in range(6)]
    assert bad_images_error(bad[:5], 9).message.count("broken") == 5
    assert bad_images_error(bad, 9).message.endswith("\n  and 1 more")


def folder_of(tmp_path: Path, *modes: str) -> Path:
    for i, mode in enumerate(modes):
        for name in "ab":
            path = tmp_path / "pictures" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (12, 12), (200, 100, 50))
            (Image.fromarray(np.full((12, 12), 5000, np.uint16)) if mode == "I;16" else image.convert(mode)).save(path)
    return tmp_path / "pictures"


@pytest.mark.parametrize("error", [KeyError("bad tile"), struct.error("unpack requires 4 bytes"), IndexError(), MemoryError()])
def test_an_error_of_any_kind_names_its_image_and_may_be_skipped(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, opened = folder_of(tmp_path, "L", "L"), Image.open

    def broken(path: Path) -> Image.Image:
        if Path(path) == pictures / "a" / "0.png":
            raise error
        return opened(path)

    monkeypatch.setattr(Image, "open", broken)
    first = f"1 of 4 images cannot be read:\n  {pictures / 'a' / '0.png'}: {type(error).__name__}"
    assert refusal(pictures).message.startswith(first)
    assert load(pictures, skip_bad_images=True).skipped == 1


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """48×16: black, white and grey squares in a row."""
    pixels = np.repeat(np.array([0, 255, 128], np.uint8), 16)[None].repeat(16, 0)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


def test_crop_keeps_the_middle_squash_all_and_pad_its_proportions_too(wide: Path) -> None:
    assert np.unique(decode(wide, 16, 1, "crop")).tolist() == [255]
    assert decode(wide, 48, 1, "squash")[24, [8, 24, 40], 0].tolist() == [0, 255, 128]
    image = decode(wide, 48, 1, "pad")[..., 0]
    assert image[24, [8, 24, 40]].tolist() == [0, 255, 128]
    assert image[:16].max() == image[32:].max() == 0


@pytest.mark.parametrize("resize", RESIZE)
@pytest.mark.parametrize("shape", [(224, 224), (300, 400), (40, 30), (9, 700)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_image_becomes_a_square_of_the_size(resize: str, shape: tuple[int, int], channels: int, tmp_path: Path) -> None:
    Image.new("RGB", shape, (90, 90, 90)).save(tmp_path / "image.png")
    image = decode(tmp_path / "image.png", 224, channels, resize)
    assert image.shape == (224, 224, channels)
    assert image[112, 112].tolist() == [90] * channels
    if resize != "pad" or shape == (224, 224):
        assert np.unique(image).tolist() == [90]


@pytest.mark.parametrize("resize", RESIZE)
def test_an_image_of_the_size_stays_as_it_is(resize: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    np.testing.assert_array_equal(decode(tmp_path / "image.png", 32, 3, resize), pixels)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_white_and_not_what_is_hidden_under_it(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((100, 100, 100, 255), (0, 0, 4, 8))
    if mode == "P":
        image = image.convert("RGB").quantize(4)
        image.info["transparency"] = image.getpixel((7, 7))
    else:
        image = image.convert(mode)
    image.save(tmp_path / "image.png")
    for channels in (1, 3):
        found = decode(tmp_path / "image.png", 8, channels)
        assert found[0, 0].tolist() == [100] * channels
        assert found[0, 7].tolist() == [255] * channels
    if mode == "RGBA":  # half transparent
        Image.new("RGBA", (8, 8), (0, 0, 0, 128)).save(tmp_path / "image.png")
        assert decode(tmp_path / "image.png", 8, 3)[0, 0].tolist() == pytest.approx([127] * 3, abs=1)


def test_grey_of_16_bits_keeps_its_upper_8(tmp_path: Path) -> None:
    levels = np.array([[0, 255, 256, 4096, 32768, 65535, 65280, 511]], np.uint16).repeat(8, 0)
    Image.fromarray(levels).save(tmp_path / "a.png")
    for channels in (1, 3):
        assert decode(tmp_path / "a.png", 8, channels)[0, :, 0].tolist() == [0, 0, 1, 16, 128, 255, 255, 1]


@pytest.mark.parametrize(
    ("modes", "channels", "expected"),
    [
        (("L", "RGB"), None, 1),
        (("L", "RGB"), "rgb", 3),
        (("RGBA", "L"), None, 3),
        (("RGB", "L"), "grey", 1),
        (("I;16", "L"), None, 1),
    ],
)
def test_channels_are_those_of_the_first_image_unless_they_are_named(
    modes: tuple[str, ...], channels: Any, expected: int, tmp_path: Path
) -> None:
    assert load(folder_of(tmp_path, *modes), channels=channels).shape.channels == expected


def test_another_resize_policy_gives_another_cache_entry(tmp_path: Path, wide: Path) -> None:
    folder = folder_of(tmp_path, "L")
    for name in "ab":
        (folder / name / "wide.png").write_bytes(wide.read_bytes())
    found = [load(folder, resize=resize) for resize in RESIZE]
    assert len({data.fingerprint for data in found}) == 3
    assert {data.shape.size for data in found} == {12}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_images_are_upright_as_their_exif_data_says(suffix: str, tmp_path: Path) -> None:
    upright = Image.new("RGB", (16, 24), (200, 200, 200))
    upright.paste((0, 0, 0), (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    upright.rotate(90, expand=True).save(tmp_path / f"phone.{suffix}", exif=exif, quality=100)
    found = decode(tmp_path / f"phone.{suffix}", 24, 1)[..., 0]
    assert found[:6].max() < 20
    assert found[10:].min() > 180


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_an_image_with_damaged_exif_data_is_taken_as_it_is(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 90).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=100)
    assert np.unique(decode(tmp_path / "a.jpg", 8, 1)).tolist() == [90]

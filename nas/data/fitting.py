"""How an image of any kind becomes one of the network's size and channels. Knows Pillow alone: an exported network takes these
functions along.
"""

from PIL import Image, ImageOps


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """In grey (1) or RGB (3). What is transparent shows white; 16 bits of grey become the upper 8, where Pillow would cut off."""
    if image.mode.startswith("I"):
        image = image.convert("I").point([level >> 8 for level in range(65536)], "L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("L" if channels == 1 else "RGB")


def squashed(image: Image.Image, size: int) -> Image.Image:
    """All of the image, its sides changed each by a factor of its own."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)


def cropped(image: Image.Image, size: int) -> Image.Image:
    """The largest square in its middle."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def padded(image: Image.Image, size: int) -> Image.Image:
    """All of the image in its own proportions, in the middle of a black square."""
    return ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC)


RESIZE = {"squash": squashed, "crop": cropped, "pad": padded}
"""To squares, by name; each with an antialiasing filter."""

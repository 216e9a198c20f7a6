#!/usr/bin/env bash
# torchvision 0.29.1 with torch 2.14.1: decode_image() of a PNG with a palette returns the bytes of the file, not an image.
#
# By default (ImageReadMode.UNCHANGED) the tensor has one channel that holds indices into a palette which is not returned. Where the
# palette has at most 16 colours, PNG packs several pixels into a byte, and the tensor holds these packed bytes at the left, followed by
# something else: a row of four pixels with the indices 0, 1, 2, 3 comes back as 27, which is 0b00011011. There is no error and no
# warning, and the shape is that of a grey image. With mode="RGB" the colours are right. A GIF, whose pixels are indices as well,
# comes back as RGB by default. Drawings, plots and images that were made small for the web are often such PNGs.
#
# Output on 2026-11-29, for a row of red, green, blue and white:
#   UNCHANGED, 4 colours    shape (1, 1, 4), first value 27
#   UNCHANGED, 256 colours  shape (1, 1, 4), values 0, 1, 2, 3
#   RGB, 4 colours          right
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q torchvision==0.29.1 torch==2.14.1 pillow==13.0.0 numpy setuptools
cat > palette.py <<'PYTHON'
import io

import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

COLOURS = [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]


def png(colours):
    """A row of red, green, blue, white with a palette of that many colours."""
    image = Image.new("P", (4, 1))
    image.putpalette(COLOURS + [0, 0, 0] * (colours - 4))
    image.putdata([0, 1, 2, 3])
    file = io.BytesIO()
    image.save(file, "PNG", bits=2 if colours == 4 else 8)
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


few, many = decode_image(png(4)), decode_image(png(256))
print(f"UNCHANGED, 4 colours    shape {tuple(few.shape)}, first value {few[0, 0, 0].item()}")
print(f"UNCHANGED, 256 colours  shape {tuple(many.shape)}, values {', '.join(map(str, many[0, 0].tolist()))}")
colours = decode_image(png(4), ImageReadMode.RGB)
right = colours.permute(1, 2, 0).flatten().tolist() == COLOURS
print(f"RGB, 4 colours          {'right' if right else 'wrong'}")
assert few.shape == (1, 1, 4) and few[0, 0, 0] == 0b00011011 and many[0, 0].tolist() == [0, 1, 2, 3] and right
PYTHON
env/bin/python palette.py

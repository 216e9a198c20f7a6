"""What pages and pictures are rendered with: this room's templates, and images as addresses within a page."""

import base64
import io
import re

import jinja2
import numpy as np
from PIL import Image

from nas.report.words import capitalised

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("nas.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)
TEMPLATES.filters |= {
    "anchor": lambda title: "-".join(re.findall(r"[^\W_]+", title.lower())),
    "capitalised": capitalised,
    "px": "{:.1f}".format,
    "whole": "{:.0f}".format,
}
SMALLEST_SHOWN = 96  # pixels; smaller images are enlarged by whole factors


def image_url(image: np.ndarray) -> str:
    """A PNG of an image uint8 (H, W, C)."""
    factor = max(1, SMALLEST_SHOWN // max(image.shape[:2]))
    pixels = image.squeeze(-1) if image.shape[-1] == 1 else image
    buffer = io.BytesIO()
    Image.fromarray(pixels.repeat(factor, 0).repeat(factor, 1)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

"""Decoding of image files."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def decode(content: bytes, name: str) -> Image.Image:
    """Decode an image file of any format that Pillow reads.

    Args:
        content: the file's bytes.
        name: for the error message.

    Raises:
        ValueError: the file is not an image, or is damaged.
    """
    from PIL import Image

    try:
        image = Image.open(BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{name} cannot be read as an image ({error}). Replace or remove the file.") from error
    return image


def pixels(image: Image.Image, size: int | None, channels: int) -> np.ndarray:
    """The pixels of a Pillow image, uint8 ``[height, width, channels]``.

    Args:
        image: an image of any mode; 16-bit values are reduced to their upper 8 bits.
        size: height and width in pixels, to which the image is scaled with the Lanczos filter; ``None`` does not scale.
        channels: 1 for grey, 3 for red, green and blue.
    """
    from PIL import Image

    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(image.height, image.width, channels)

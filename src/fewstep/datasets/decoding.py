"""Image files, decoded."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def decode(content: bytes, name: str) -> Image.Image:
    """An image file in any format that Pillow reads, whole in memory.

    Args:
        content: the file's bytes.
        name: for the error message.

    Raises:
        ValueError: it is no image, or a damaged one.
    """
    from PIL import Image

    try:
        image = Image.open(BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{name} is no readable image ({error}); get the file anew.") from error
    return image


def pixels(image: Image.Image, size: int | None, channels: int) -> np.ndarray:
    """The pixels of a Pillow image, uint8 ``[height, width, channels]``.

    Args:
        image: in any mode; of 16 bits the upper eight are taken.
        size: height and width to which the image is scaled with Lanczos' filter, if it has others.
        channels: 1 for grey, 3 for red, green and blue.
    """
    from PIL import Image

    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(image.height, image.width, channels)

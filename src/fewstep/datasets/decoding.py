"""Image files, decoded."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np


def decode(content: bytes, name: str, size: tuple[int, int], mode: str = "RGB") -> np.ndarray:
    """The pixels of an image file, uint8 ``[height, width, channels]``.

    Args:
        content: the file's bytes, in any format that Pillow reads.
        name: for the error message.
        size: height and width. Another size is scaled to this one, sides apart, with Lanczos' filter.
        mode: Pillow's, ``RGB`` or ``L``.

    Raises:
        ValueError: it is no image, or a damaged one.
    """
    from PIL import Image

    try:
        image = Image.open(BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{name} is no readable image ({error}); get the file anew.") from error
    return pixels(image, size, mode)


def pixels(image: Any, size: tuple[int, int], mode: str = "RGB") -> np.ndarray:
    """The pixels of a Pillow image, ``[height, width, channels]``, scaled likewise."""
    from PIL import Image

    image = image.convert(mode)
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    found = np.asarray(image)
    return found[..., None] if found.ndim == 2 else found

"""Decoding of image files."""

from __future__ import annotations

import struct
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from fewstep.arguments import check_whole

if TYPE_CHECKING:
    from PIL import Image


FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read. Pillow knows further ones, some of which start other programs (PostScript)."""


def image_suffixes() -> set[str]:
    """The endings of the names of image files, such as ``.png``."""
    from PIL import Image

    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}


def decode(content: bytes, name: str) -> Image.Image:
    """Decode an image file.

    Args:
        content: the file's bytes, of one of the formats BMP, GIF, JPEG, PNG, PPM, TIFF and WebP, whatever its name
            says.
        name: for the error message.

    Raises:
        ValueError: the file is not an image, is damaged, or has more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    from PIL import Image, UnidentifiedImageError

    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(content), formats=[kind for kind in FORMATS if kind in Image.OPEN])
            image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{name} is refused, since its pixels would fill the memory ({error}). Remove the file, or scale it down."
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{name} cannot be read as an image: expected {', '.join(FORMATS)}. Replace or remove the file."
        ) from error
    except (OSError, SyntaxError, ValueError, ArithmeticError, LookupError, TypeError, struct.error) as error:
        raise ValueError(f"{name} cannot be read as an image ({error}). Replace or remove the file.") from error
    return image


def check_image_size(owner: str, size: Any, channels: Any) -> None:
    """Raise unless ``size`` is a number of pixels or ``None``, and ``channels`` 1 or 3."""
    if size is not None:
        check_whole(owner, size=size)
    if isinstance(channels, bool) or channels not in (1, 3):
        raise ValueError(f"{owner}: channels must be 1 or 3, for greyscale or colour; got {channels!r}.")


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

"""Data sets from a folder of images with one sub-folder per class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fewstep.arguments import check_path, check_whole
from fewstep.datasets.cache import ClassImages, cached
from fewstep.datasets.decoding import check_image_size, decode, image_suffixes, pixels
from fewstep.datasets.labelled_images import LabelledImages
from fewstep.files import check_regular, read_regular


def from_folder(root: str | Path, size: int, channels: int = 3) -> LabelledImages:
    """Load the images of a folder with one sub-folder per class.

    Files whose names end in the extension of BMP, GIF, JPEG, PNG, PPM, TIFF or WebP are read, including those in nested
    folders, in the order of their names. Images are rotated as their EXIF orientation says, and scaled to ``size`` ×
    ``size`` with the Lanczos filter. Decoded images are cached; when a file is added, removed or changed, all are
    decoded again.

    Args:
        root: the folder; the names of its sub-folders are the names of the classes.
        size: height and width in pixels.
        channels: 3 for colour, 1 for greyscale.

    Returns:
        Images ``[examples, channels, size, size]`` of uint8.

    Raises:
        FileNotFoundError: the folder does not exist or has no sub-folders.
        ValueError: ``channels`` or ``size`` is invalid, a class has no images, a file is no regular file, or an image
            cannot be read.

    Examples:
        >>> images = from_folder("photos", size=84)  # doctest: +SKIP
    """
    check_path("from_folder", root=root)
    check_whole("from_folder", size=size)
    check_image_size("from_folder", size, channels)
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"from_folder: {root} is not a folder.")
    classes = {
        folder.name: _images(folder) for folder in sorted(root.iterdir()) if _visible(folder) and folder.is_dir()
    }
    if not classes:
        raise FileNotFoundError(f"from_folder: {root} has no sub-folders. Put each class into a sub-folder.")
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise ValueError(f"from_folder: {root / empty[0]} holds no images. Remove it, or put images there.")

    def build() -> Iterator[ClassImages]:
        for name, files in classes.items():
            yield name, np.stack([_read(file, size, channels) for file in files])

    everything = [file for files in classes.values() for file in files]
    counts = {name: len(files) for name, files in classes.items()}
    return cached(f"folder-{root.resolve().name}", everything, build, size=size, channels=channels, classes=counts)


def _images(folder: Path) -> list[Path]:
    endings = image_suffixes()
    found = [file for file in sorted(folder.rglob("*")) if _visible(file) and file.suffix.lower() in endings]
    return [check_regular(file) for file in found if not file.is_dir()]


def _visible(file: Path) -> bool:
    return not file.name.startswith(".")


def _read(file: Path, size: int, channels: int) -> np.ndarray:
    from PIL import ImageOps

    return pixels(ImageOps.exif_transpose(decode(read_regular(file), str(file))), size, channels)

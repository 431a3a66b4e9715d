"""A folder of images with one sub-folder for each class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fewstep.datasets.cache import ClassImages, cached
from fewstep.datasets.decoding import decode, pixels
from fewstep.datasets.labelled_images import LabelledImages


def from_folder(root: str | Path, size: int, channels: int = 3) -> LabelledImages:
    """The images of a folder with one sub-folder for each class, ``[channels, size, size]``.

    All files with the ending of an image format are read, also in folders within, in the order of their names. They are
    turned upright where the camera noted how, and scaled to size × size with Lanczos' filter. They are decoded once;
    when files are added, removed or changed, all are decoded anew.

    Args:
        root: the folder; the names of its sub-folders are those of the classes.
        size: height and width.
        channels: 3 for colour, 1 for grey.

    Raises:
        FileNotFoundError: there is no such folder, or it has no sub-folders.
        ValueError: a class has no images, or an image cannot be read.
    """
    root = Path(root)
    if channels not in (1, 3) or size < 1:
        raise ValueError(f"from_folder: channels must be 1 or 3 and size at least 1; got {channels} and {size}.")
    if not root.is_dir():
        raise FileNotFoundError(f"from_folder: {root} is no folder.")
    classes = {
        folder.name: _images(folder) for folder in sorted(root.iterdir()) if _visible(folder) and folder.is_dir()
    }
    if not classes:
        raise FileNotFoundError(f"from_folder: {root} has no sub-folders; put the images of each class into one.")
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise ValueError(f"from_folder: {root / empty[0]} holds no images; remove it, or put images there.")

    def build() -> Iterator[ClassImages]:
        for name, files in classes.items():
            yield name, np.stack([_read(file, size, channels) for file in files])

    everything = [file for files in classes.values() for file in files]
    counts = {name: len(files) for name, files in classes.items()}
    return cached(f"folder-{root.resolve().name}", everything, build, size=size, channels=channels, classes=counts)


def _images(folder: Path) -> list[Path]:
    from PIL import Image

    endings = Image.registered_extensions()
    return [file for file in sorted(folder.rglob("*")) if _visible(file) and file.suffix.lower() in endings]


def _visible(file: Path) -> bool:
    return not file.name.startswith(".")


def _read(file: Path, size: int, channels: int) -> np.ndarray:
    from PIL import ImageOps

    return pixels(ImageOps.exif_transpose(decode(file.read_bytes(), str(file))), size, channels)

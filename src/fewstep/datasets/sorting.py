"""Sorting of examples by class with little memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import numpy as np

from fewstep.datasets.cache import writable_cache_folder

Example = tuple[Any, int, "np.ndarray[Any, np.dtype[np.uint8]]"]
"""A label, a position within the class, and an image ``[height, width, channels]``; all images have one size."""


def sorted_by_class(examples: Iterable[Example]) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield each label with its images ``[examples, height, width, channels]``, sorted by label and position.

    Images are written to a temporary file in the cache folder, so that memory holds one class at a time.

    Raises:
        ValueError: images differ in shape.

    Examples:
        >>> pixel = np.zeros((1, 1, 1), np.uint8)
        >>> examples = [("b", 0, pixel), ("a", 9, pixel), ("a", 3, pixel + 1)]
        >>> [(label, images.ravel().tolist()) for label, images in sorted_by_class(examples)]
        [('a', [1, 0]), ('b', [0])]
    """
    found: list[tuple[Any, int, int]] = []
    shape: tuple[int, ...] | None = None
    with tempfile.TemporaryFile(dir=writable_cache_folder()) as file:
        for label, place, image in examples:
            if shape not in (None, image.shape):
                raise ValueError(f"Images of one data set must have one shape; got {shape} and {image.shape}.")
            shape = image.shape
            found.append((label, place, len(found)))
            file.write(np.ascontiguousarray(image, np.uint8).tobytes())
        if shape is None:
            return
        file.flush()
        images = np.memmap(file, np.uint8, mode="r", shape=(len(found), *shape))
        for label, group in groupby(sorted(found), lambda example: example[0]):
            yield label, images[[position for _, _, position in group]]

"""A cache of decoded images on disk, which is mapped into memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewstep.datasets.labelled_images import LabelledImages

ClassImages = tuple[str, "np.ndarray[Any, np.dtype[np.uint8]]"]
"""The name of a class and its images, ``[examples, height, width, channels]``."""

_VERSION = 1


def cache_folder() -> Path:
    """The folder of the cache: ``FEWSTEP_CACHE``, or ``fewstep`` in the user's cache folder."""
    if "FEWSTEP_CACHE" in os.environ:
        return Path(os.environ["FEWSTEP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewstep"


def writable_cache_folder() -> Path:
    """The folder of the cache, which is created if it does not exist.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(
            f"The cache folder {folder} cannot be written ({error}). Set the environment "
            "variable FEWSTEP_CACHE to another folder."
        ) from error
    return folder


def cached(
    name: str, sources: Sequence[Path], build: Callable[[], Iterable[ClassImages]], **options: Any
) -> LabelledImages:
    """The images that ``build`` yields, from the cache if it is complete and the source files have not changed.

    Args:
        name: the name of data set and split, with which the name of the cached folder begins.
        sources: the files that the images come from.
        build: decodes the images, class by class.
        **options: everything else that the images depend on.

    Raises:
        OSError: the cache folder cannot be written.
    """
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sources]
    text = json.dumps([_VERSION, name, options, stamps])
    folder = cache_folder() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    found = _open(folder)
    if found is None:
        _write(folder, build())
        found = _open(folder)
        if found is None:
            raise OSError(f"{folder} was written but cannot be read. Check whether the disk is full.")
    return found


def _open(folder: Path) -> LabelledImages | None:
    try:
        index = json.loads((folder / "index.json").read_text())
        whole = (folder / "images.bin").stat().st_size == np.prod(index["shape"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not whole:
        return None
    # Copy-on-write: writing to the tensor does not change the file.
    mapped = np.memmap(folder / "images.bin", np.uint8, mode="c", shape=tuple(index["shape"]))
    images = torch.from_numpy(mapped).permute(0, 3, 1, 2)
    return LabelledImages(images, torch.tensor(index["starts"]), index["classes"])


def _write(folder: Path, classes: Iterable[ClassImages]) -> None:
    """Write under a temporary name and rename, so that an existing cache is complete."""
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=writable_cache_folder()))
    try:
        names, starts, shape = [], [0], None
        with open(unfinished / "images.bin", "wb") as file:
            for name, images in classes:
                if shape is not None and images.shape[1:] != shape:
                    raise ValueError(
                        f"All images must have one shape; class {name!r} has {images.shape[1:]}, earlier ones {shape}."
                    )
                shape = images.shape[1:]
                file.write(np.ascontiguousarray(images, np.uint8).tobytes())
                names.append(name)
                starts.append(starts[-1] + len(images))
        index = {"shape": [starts[-1], *(shape or ())], "starts": starts, "classes": names}
        (unfinished / "index.json").write_text(json.dumps(index))
        if _open(folder) is None:  # otherwise another process has written it, and may be using it
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # another process has written it in the meantime
                unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

"""Decoded images on disk, mapped into memory, so that the second start takes no time."""

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
    """Where decoded images are kept: ``FEWSTEP_CACHE``, or ``fewstep`` in the user's cache folder."""
    if "FEWSTEP_CACHE" in os.environ:
        return Path(os.environ["FEWSTEP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewstep"


def writable_cache_folder() -> Path:
    """The same folder, made if it is not there.

    Raises:
        OSError: it cannot be written.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(
            f"The cache folder {folder} cannot be written ({error}). Name another one in the environment "
            "variable FEWSTEP_CACHE."
        ) from error
    return folder


def cached(
    name: str, sources: Sequence[Path], build: Callable[[], Iterable[ClassImages]], **options: Any
) -> LabelledImages:
    """What ``build`` makes of the source files, from the cache if it is there whole and the files have not changed.

    Args:
        name: of the data set and split; begins the name in the cache.
        sources: the files that the images come from.
        build: decodes them, class by class.
        **options: whatever else the images depend on.

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
            raise OSError(f"{folder} was written and cannot be read again; is the disk full?")
    return found


def _open(folder: Path) -> LabelledImages | None:
    try:
        index = json.loads((folder / "index.json").read_text())
        whole = (folder / "images.bin").stat().st_size == np.prod(index["shape"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not whole:
        return None
    # Copy-on-write: nothing that is done to the tensor reaches the file.
    mapped = np.memmap(folder / "images.bin", np.uint8, mode="c", shape=tuple(index["shape"]))
    images = torch.from_numpy(mapped).permute(0, 3, 1, 2)
    return LabelledImages(images, torch.tensor(index["starts"]), index["classes"])


def _write(folder: Path, classes: Iterable[ClassImages]) -> None:
    """Everything under a temporary name, then renamed: a cache that is there is whole."""
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=writable_cache_folder()))
    try:
        names, starts, shape = [], [0], None
        with open(unfinished / "images.bin", "wb") as file:
            for name, images in classes:
                if shape is not None and images.shape[1:] != shape:
                    raise ValueError(f"Images of class {name!r} are {images.shape[1:]}, those before {shape}.")
                shape = images.shape[1:]
                file.write(np.ascontiguousarray(images, np.uint8).tobytes())
                names.append(name)
                starts.append(starts[-1] + len(images))
        index = {"shape": [starts[-1], *(shape or ())], "starts": starts, "classes": names}
        (unfinished / "index.json").write_text(json.dumps(index))
        if _open(folder) is None:  # else another process was faster, and what it made may be in use
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # the same, in this very moment
                unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

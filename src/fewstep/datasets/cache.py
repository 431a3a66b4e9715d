"""A cache of decoded images on disk, which is mapped into memory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from fewstep.datasets.labelled_images import LabelledImages

ClassImages = tuple[str, "np.ndarray[Any, np.dtype[np.uint8]]"]
"""The name of a class and its images, ``[examples, height, width, channels]``."""

_VERSION = 2

_LOCK = ".lock"
"""A file in a folder whose images are being decoded; the process that decodes holds a lock on it."""

_verified: set[tuple[str, int, int, int]] = set()
"""Files whose checksum this process has verified: path, inode, size and time."""


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

    Several users can share a cache: what one has decoded, the others read, as far as the permissions of the cache
    folder let them.

    Args:
        name: the name of data set and split, with which the name of the cached folder begins.
        sources: the files that the images come from.
        build: decodes the images, class by class.
        **options: everything else that the images depend on.

    Raises:
        OSError: the cache folder cannot be written.
    """
    found = [(os.path.abspath(file), file.stat()) for file in sources]
    stamps = [(path, status.st_size, status.st_mtime_ns) for path, status in found]
    text = json.dumps([_VERSION, name, options, stamps])
    folder = cache_folder() / f"{_file_name(name)}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    images = _open(folder)
    if images is None:
        _write(folder, build())
        images = _open(folder)
        if images is None:
            raise OSError(f"{folder} was written but cannot be read. Check whether the disk is full.")
    return images


def _file_name(name: str) -> str:
    """A name that cannot leave the folder of the cache, from that of a folder of images."""
    return re.sub(r"[^\w.-]", "_", name)[:100]


def _remove_half_decoded(cache: Path) -> None:
    """Removes the folders that dead processes left half decoded; they have a random ending of eight characters."""
    for folder in cache.glob(f"*-{'?' * 16}.{'?' * 8}"):
        with suppress(OSError, Timeout):
            if (folder / _LOCK).exists():
                with FileLock(folder / _LOCK, timeout=0):  # not held: its process is dead
                    shutil.rmtree(folder, ignore_errors=True)
            elif folder.stat().st_mtime < time.time() - 24 * 3600:  # of a version without locks
                shutil.rmtree(folder, ignore_errors=True)


def _open(folder: Path) -> LabelledImages | None:
    try:
        index = json.loads((folder / "index.json").read_text())
        examples, height, width, channels = index["shape"]
        whole = (folder / "images.bin").stat().st_size == examples * height * width * channels
        shaped = min(examples, height, width, channels) > 0 and index["starts"][-1] == examples
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    if not whole or not shaped:
        return None
    if not _has_checksum(folder / "images.bin", index):
        warnings.warn(f"{folder} is damaged: its checksum differs. The images are decoded again.", stacklevel=2)
        return None
    # Copy-on-write: writing to the tensor does not change the file.
    mapped = np.memmap(folder / "images.bin", np.uint8, mode="c", shape=tuple(index["shape"]))
    images = torch.from_numpy(mapped).permute(0, 3, 1, 2)
    return LabelledImages(images, torch.tensor(index["starts"]), index["classes"])


def _has_checksum(file: Path, index: dict[str, Any]) -> bool:
    """Whether index and images are those that were written.

    It is computed once per process: the CRC-32 of the file, at about 3 GB per second from memory.
    """
    status = file.stat()
    key = str(file), status.st_ino, status.st_size, status.st_mtime_ns
    expected = index.get("checksum")
    if expected is not None and key not in _verified:  # older caches have none
        found = 0
        with open(file, "rb") as opened:
            while part := opened.read(2**24):
                found = zlib.crc32(part, found)
        if _with_index(found, index) != expected:
            return False
        _verified.add(key)
    return True


def _with_index(checksum: int, index: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps([index[name] for name in ("shape", "starts", "classes")]).encode(), checksum)


def _write(folder: Path, classes: Iterable[ClassImages]) -> None:
    """Write under a temporary name and rename, so that an existing cache is complete."""
    cache = writable_cache_folder()
    _remove_half_decoded(cache)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=cache))
    lock = FileLock(unfinished / _LOCK)
    try:
        lock.acquire()
        names, starts, shape, checksum = [], [0], None, 0
        with open(unfinished / "images.bin", "wb") as file:
            for name, images in classes:
                if shape is not None and images.shape[1:] != shape:
                    raise ValueError(
                        f"All images must have one shape; class {name!r} has {images.shape[1:]}, earlier ones {shape}."
                    )
                shape = images.shape[1:]
                content = np.ascontiguousarray(images, np.uint8).tobytes()
                file.write(content)
                checksum = zlib.crc32(content, checksum)
                names.append(name)
                starts.append(starts[-1] + len(images))
        index: dict[str, Any] = {"shape": [starts[-1], *(shape or ())], "starts": starts, "classes": names}
        index["checksum"] = _with_index(checksum, index)
        (unfinished / "index.json").write_text(json.dumps(index))
        unfinished.chmod(stat.S_IMODE(folder.parent.stat().st_mode) & 0o777)  # as open to others as the cache is
        if _open(folder) is None:  # otherwise another process has written it, and may be using it
            shutil.rmtree(folder, ignore_errors=True)
            (unfinished / _LOCK).unlink()
            with suppress(OSError):  # another process has written it in the meantime
                unfinished.rename(folder)
    finally:
        lock.release()
        shutil.rmtree(unfinished, ignore_errors=True)

"""Omniglot's official files, fetched, checked, and resumed where an earlier attempt was cut off."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT = 30.0
_PIECE = 2**18


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network whose content is known."""

    url: str
    size: int
    """In bytes."""
    sha256: str
    """The hash of its content."""

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


OMNIGLOT = (
    RemoteFile(
        "https://github.com/brendenlake/omniglot/raw/master/python/images_background.zip",
        9_464_212,
        "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
    ),
    RemoteFile(
        "https://github.com/brendenlake/omniglot/raw/master/python/images_evaluation.zip",
        6_462_886,
        "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
    ),
)
"""The official files, with the sizes and hashes that TensorFlow Datasets records for them."""


def download_omniglot(root: Path) -> Iterator[str]:
    """Fetches the official files into ``root/omniglot``, and says of each what was done.

    Raises:
        ConnectionError: the network failed; what has arrived is kept for the next attempt.
        ValueError: what came is not the official file; it is removed.
    """
    for remote in OMNIGLOT:
        file = root / "omniglot" / remote.name
        if not file.exists():
            yield f"Fetching {remote.url} ({remote.size / 1e6:.1f} MB)"
            download(remote, file)
            yield f"Wrote {file}"
        elif _sha256(file) == remote.sha256:
            yield f"{file} is there, and whole."
        else:
            yield f"{file} is there, but is not the official file; remove it to fetch that."


def download(remote: RemoteFile, file: Path) -> None:
    """Fetches one file under a temporary name, checks it and renames it.

    Raises:
        ConnectionError: the network failed; what has arrived is kept in ``NAME.part``, and the next call goes on there.
        ValueError: what came is something else; it is removed.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    try:
        _fetch(remote, part)
    except (OSError, http.client.HTTPException) as error:
        arrived = part.stat().st_size if part.exists() else 0
        raise ConnectionError(
            f"{remote.url} could not be fetched ({error}). {arrived:,} of {remote.size:,} bytes are here; the same "
            f"command goes on with the rest. Without a network, get {remote.name} elsewhere and put it into "
            f"{file.parent}."
        ) from error
    found = _sha256(part)
    if found != remote.sha256:
        part.unlink()
        raise ValueError(
            f"{remote.url} gave something else than the official file: its SHA-256 should be {remote.sha256} and is "
            f"{found}. It was removed; try again, or get {remote.name} elsewhere and put it into {file.parent}."
        )
    part.replace(file)


def _fetch(remote: RemoteFile, part: Path) -> None:
    """Appends to ``part`` what it lacks; anew from the start where the server cannot continue."""
    start = part.stat().st_size if part.exists() else 0
    if start >= remote.size:
        return
    request = urllib.request.Request(remote.url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        continued = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        with open(part, "ab" if continued else "wb") as file:
            while piece := answer.read(_PIECE):
                file.write(piece)
            arrived = file.tell()
    if arrived < remote.size:
        raise ConnectionError("the connection ended early")


def _sha256(file: Path) -> str:
    found = hashlib.sha256()
    with open(file, "rb") as content:
        while piece := content.read(_PIECE):
            found.update(piece)
    return found.hexdigest()

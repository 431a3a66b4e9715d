"""Download of Omniglot's official files, with a check of their hashes; interrupted downloads are resumed."""

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
    """A file on the network with known size and hash."""

    url: str
    size: int
    """The size in bytes."""
    sha256: str
    """The SHA-256 of the content."""

    @property
    def name(self) -> str:
        """The last part of the URL."""
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
"""The official files, with the sizes and hashes recorded by TensorFlow Datasets."""


def download_omniglot(root: Path) -> Iterator[str]:
    """Download the official files into ``root/omniglot``, and yield a message about each.

    Raises:
        ConnectionError: the network failed; the next call resumes the download.
        ValueError: the downloaded file is not the official one; it is removed.
    """
    for remote in OMNIGLOT:
        file = root / "omniglot" / remote.name
        if not file.exists():
            yield f"Downloading {remote.url} ({remote.size / 1e6:.1f} MB)"
            download(remote, file)
            yield f"Wrote {file}"
        elif _sha256(file) == remote.sha256:
            yield f"{file} exists and is complete."
        else:
            yield f"{file} exists, but is not the official file. Remove it to download that file."


def download(remote: RemoteFile, file: Path) -> None:
    """Download one file under a temporary name, check its hash and rename it.

    Raises:
        ConnectionError: the network failed; the part received is kept in ``NAME.part``, and the next call resumes it.
        ValueError: the hash differs; the file is removed.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    try:
        _fetch(remote, part)
    except (OSError, http.client.HTTPException) as error:
        arrived = part.stat().st_size if part.exists() else 0
        raise ConnectionError(
            f"{remote.url} could not be downloaded ({error}). {arrived:,} of {remote.size:,} bytes were received; run "
            f"the same command again to resume. Without a network, get {remote.name} elsewhere and put it into "
            f"{file.parent}."
        ) from error
    found = _sha256(part)
    if found != remote.sha256:
        part.unlink()
        raise ValueError(
            f"{remote.url} is not the official file: its SHA-256 must be {remote.sha256}; got "
            f"{found}. The file was removed. Try again, or get {remote.name} elsewhere and put it into {file.parent}."
        )
    part.replace(file)


def _fetch(remote: RemoteFile, part: Path) -> None:
    """Append the missing bytes to ``part``, or start again where the server cannot resume."""
    start = part.stat().st_size if part.exists() else 0
    if start >= remote.size:
        return
    request = urllib.request.Request(remote.url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        continued = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        with open(part, "ab" if continued else "wb") as file:
            while piece := answer.read(_PIECE):
                file.write(piece)
                if file.tell() > remote.size:  # another file, whose hash will differ
                    break
            arrived = file.tell()
    if arrived < remote.size:
        raise ConnectionError("the connection ended early")


def _sha256(file: Path) -> str:
    found = hashlib.sha256()
    with open(file, "rb") as content:
        while piece := content.read(_PIECE):
            found.update(piece)
    return found.hexdigest()

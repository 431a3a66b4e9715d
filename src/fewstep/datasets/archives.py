"""Reading files from a folder, a tar archive or a zip archive in one pass, with bounded memory and time."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from fewstep.files import check_regular, read_regular

MAX_BYTES = 2**30
"""The largest file in an archive that is read."""

_MAX_HEADER = 2**20
_RATIO = 200
DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError, NotImplementedError,
    UnicodeDecodeError, OverflowError,
)  # fmt: skip
"""What reading a damaged or encrypted archive raises."""


def read_files(source: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the wanted files, in the order in which the folder or archive stores them.

    A compressed tar archive is decompressed once, as a stream, and only up to the last wanted file.

    Args:
        source: a folder, a zip file, or a tar file, compressed or not.
        wanted: file names without folders.

    Raises:
        FileNotFoundError: wanted files are missing.
        ValueError: the archive is damaged or decompresses to far more than an archive of data, or a name leaves the
            folder.
    """
    outside = next((name for name in wanted if PurePath(name).name != name or "\\" in name), None)
    if outside is not None:
        raise ValueError(f"{source}: expected file names without folders; got {outside!r}. Correct the list of files.")
    missing = dict.fromkeys(wanted)
    try:
        for name, content in _all_files(source, missing):
            del missing[name]
            yield name, content
            if not missing:
                return
    except DAMAGE as error:
        raise ValueError(f"{source} is damaged or truncated ({error}). Download it again.") from error
    if missing:
        raise FileNotFoundError(
            f"{source} lacks {len(missing)} of {len(wanted)} files, such as {next(iter(missing))}. Download it again."
        )


def _all_files(source: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the wanted files that exist; the caller removes names from ``wanted`` meanwhile."""
    if source.is_dir():
        for name in list(wanted):
            if (source / name).exists():
                yield name, read_regular(source / name, MAX_BYTES)
    elif source.suffix == ".zip":
        check_regular(source)
        with zipfile.ZipFile(source) as archive:
            for path in archive.namelist():
                if PurePosixPath(path).name in wanted:
                    yield PurePosixPath(path).name, read_member(archive, path, source)
    else:
        check_regular(source)
        with tarfile.open(source, "r|*", bufsize=2**20, tarinfo=_Header) as archive:
            size = source.stat().st_size
            for member in archive:
                _check_size(source, member.name, member.size if member.isfile() else 0)
                if archive.offset > max(MAX_BYTES, _RATIO * size):
                    raise ValueError(
                        f"{source} has {size:,} bytes and decompresses to more than {_RATIO} times as many, at "
                        f"{member.name}. It is not an archive of data; download it again from a source you trust."
                    )
                name = PurePosixPath(member.name).name
                if name in wanted and member.isfile():
                    content = archive.extractfile(member)
                    assert content is not None
                    yield name, content.read(MAX_BYTES)
                archive.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps all members in memory


def read_member(archive: zipfile.ZipFile, path: str, source: Path) -> bytes:
    """Read a file of a zip archive whose size is bounded.

    Args:
        archive: the archive.
        path: the file's path in it.
        source: the file of the archive, for the message.

    Raises:
        ValueError: the file is larger than ``MAX_BYTES``.
    """
    _check_size(source, path, archive.getinfo(path).file_size)
    with archive.open(path) as file:  # reads no more than the size in its header
        return file.read(MAX_BYTES)


def _check_size(source: Path, name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(
            f"{source}: {name} decompresses to {size:,} bytes; expected at most {MAX_BYTES:,}. That is no file of "
            "data: download the archive again, from a source you trust."
        )


class _Header(tarfile.TarInfo):
    """The header of a file in a tar archive; the size of extended headers, which are read into memory, is bounded."""

    _EXTENDED = (
        tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
    )  # fmt: skip

    @classmethod
    def frombuf(cls, *args: Any, **kwargs: Any) -> Any:
        found = super().frombuf(*args, **kwargs)
        if found.type in cls._EXTENDED and found.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {found.size:,} bytes, where {_MAX_HEADER:,} are enough")
        return found

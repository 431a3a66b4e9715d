"""Reading files from a folder, a tar archive or a zip archive in one pass."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError)


def read_files(source: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the wanted files, in the order in which the folder or archive stores them.

    A compressed tar archive is decompressed once, as a stream, and only up to the last wanted file.

    Args:
        source: a folder, a zip file, or a tar file, compressed or not.
        wanted: file names without folders.

    Raises:
        FileNotFoundError: wanted files are missing.
        ValueError: the archive is damaged.
    """
    missing = dict.fromkeys(wanted)
    try:
        for name, content in _all_files(source, missing):
            del missing[name]
            yield name, content
            if not missing:
                return
    except _DAMAGE as error:
        raise ValueError(f"{source} is damaged or truncated ({error}). Download it again.") from error
    if missing:
        raise FileNotFoundError(
            f"{source} lacks {len(missing)} of {len(wanted)} files, such as {next(iter(missing))}. Download it again."
        )


def _all_files(source: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the wanted files that exist; the caller removes names from ``wanted`` meanwhile."""
    if source.is_dir():
        for name in list(wanted):
            if (source / name).is_file():
                yield name, (source / name).read_bytes()
    elif source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            for path in archive.namelist():
                if PurePosixPath(path).name in wanted:
                    yield PurePosixPath(path).name, archive.read(path)
    else:
        with tarfile.open(source, "r|*", bufsize=2**20) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if name in wanted and member.isfile():
                    content = archive.extractfile(member)
                    assert content is not None
                    yield name, content.read()
                archive.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps all members in memory

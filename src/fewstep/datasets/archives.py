"""Files of a folder, a tar or a zip archive, read in one pass."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError)


def read_files(source: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the wanted files, in the order in which a folder or archive holds them.

    A compressed tar archive is decompressed once, as a stream, and only up to the last wanted file.

    Args:
        source: a folder, a zip file, or a tar file, compressed or not.
        wanted: names without folders.

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
        raise ValueError(f"{source} is damaged or cut short ({error}); get it anew.") from error
    if missing:
        raise FileNotFoundError(
            f"{source} lacks {len(missing)} of {len(wanted)} files, such as {next(iter(missing))}; get it anew."
        )


def _all_files(source: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Those of the wanted files that are there; ``wanted`` shrinks meanwhile."""
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
                archive.members.clear()  # type: ignore[attr-defined]  # else it remembers every file until the end

"""Reading of files that others made: regular files only, of bounded size, and text that is safe to show."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_BYTES = 2**32
"""The largest file that is read into memory."""

_KINDS = {
    stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}  # fmt: skip


def read_regular(file: Path, limit: int = MAX_BYTES) -> bytes:
    """Read a regular file, or a link to one.

    A named pipe or a device would wait for a writer, or never end.

    Args:
        file: the file.
        limit: the largest size, in bytes.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: it is not a regular file, or is larger than ``limit``.

    Examples:
        >>> read_regular(Path("/dev/zero"))
        Traceback (most recent call last):
        ValueError: /dev/zero is a device; expected a regular file. Remove it, or replace it by a file.
    """
    check_regular(file)
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as opened:
        found = os.fstat(descriptor)
        if found.st_size > limit or not stat.S_ISREG(found.st_mode):
            raise ValueError(
                f"{file} has {found.st_size:,} bytes; expected at most {limit:,}. Check what the file is, or remove it."
            )
        return opened.read(limit)


def check_regular(file: Path) -> Path:
    """The file, if it is a regular file or a link to one.

    Raises:
        FileNotFoundError: it does not exist, or is a link to nothing.
        ValueError: it is a folder, a named pipe, a device or a socket.
    """
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        what = f"is a link to {os.readlink(file)}, which does not exist" if file.is_symlink() else "does not exist"
        raise FileNotFoundError(f"{file} {what}. Remove or restore it.") from None
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a special file")
        raise ValueError(f"{file} is {kind}; expected a regular file. Remove it, or replace it by a file.")
    return file


def printable(text: str) -> str:
    r"""Text with control characters, and those that change the direction of writing, as escapes.

    A file from elsewhere could otherwise move the cursor, recolour the terminal or reverse what is shown.

    Args:
        text: any text; line breaks and tabs stay.

    Examples:
        >>> printable("a\x1b[31mb")
        'a\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in "\n\t" else _escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode() if ord(sign) != 0xA0 else sign

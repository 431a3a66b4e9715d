"""What the command line says when a command fails: an error in words, or a bug with where to report it."""

from __future__ import annotations

import dis
import errno
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import PurePath

from fewstep.files import printable

_RAISE = dis.opmap["RAISE_VARARGS"]
_FIXES = {
    errno.ENOSPC: "The disk is full: free some space, or name a folder on another disk.",
    errno.EDQUOT: "The quota of disk space is used up: free some space, or name a folder elsewhere.",
    errno.EACCES: "Change its permissions, or name another file or folder.",
    errno.EPERM: "Change its permissions, or name another file or folder.",
    errno.EROFS: "The disk is read-only: name a folder on another disk.",
    errno.ENOENT: "Check the name.",
    errno.EISDIR: "Name a file instead of a folder.",
    errno.ENOTDIR: "Name a folder instead of a file.",
    errno.EEXIST: "Remove it, or name another.",
    errno.EFBIG: "The largest size of a file is limited (ulimit -f): raise the limit.",
    errno.EMFILE: "Too many files are open: raise the limit (ulimit -n).",
}


def described(error: BaseException) -> str:
    """The lines that are printed about an error that ends a command.

    Args:
        error: the error.

    Examples:
        >>> described(OSError(28, "No space left on device", "runs/a"))
        'fewstep: runs/a: No space left on device. The disk is full: free some space, or name a folder on another disk.'
    """
    text = _in_words(error)
    return f"fewstep: {printable(text)}" if text is not None else printable(_bug(error))


def reason(error: BaseException) -> str:
    """Why one of several runs failed, in one line where it is expected."""
    return printable(_in_words(error) or f"unexpected {type(error).__name__}: {error}")


def is_deliberate(error: BaseException) -> bool:
    """Whether an error comes from a ``raise`` statement of fewstep, not from a call that failed."""
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    name = str(trace.tb_frame.f_globals.get("__name__", ""))
    return name.partition(".")[0] == "fewstep" and trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE


def _in_words(error: BaseException) -> str | None:
    """The message of an error that says what to do; ``None`` of others."""
    if is_deliberate(error):
        return str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if isinstance(error, OSError) and error.errno is not None:
        where = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        fix = _FIXES.get(error.errno, "")
        return f"{f'{where}: ' if where else ''}{error.strerror}. {fix}".strip()
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        first = (str(error) or "MemoryError").splitlines()[0]
        return (
            f"the memory is not enough ({first}). Use fewer tasks at a time (--meta-batch), fewer examples "
            "(--queries), or another --device."
        )
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "fewstep":
        package = error.name.partition(".")[0]
        return f"this command needs the package {package}, which is not installed: pip install {package}"
    return None


def _bug(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" ({PurePath(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"
    return (
        f"fewstep: unexpected {type(error).__name__}: {error}{place}\n"
        f"This is a bug of fewstep. Please report it{_where()}, with the command and the traceback: repeat the command "
        "with FEWSTEP_TRACEBACK=1 before it."
    )


def _where() -> str:
    """Where bugs are reported: the repository that the package names, if it names one."""
    try:
        named = metadata("fewstep").get_all("Project-URL") or []
    except PackageNotFoundError:
        named = []
    urls = dict(entry.split(", ", 1) for entry in named if ", " in entry)
    for name in ("Issues", "Repository", "Source", "Homepage"):
        if name in urls:
            return f" at {urls[name]}"
    return " to its developers"

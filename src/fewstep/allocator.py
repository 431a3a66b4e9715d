"""The memory allocator of the process, which affects the speed of training on CPUs.

glibc returns the memory of large tensors to the system, and requests it again for the next ones. Mapping and zeroing
these pages takes up to half the time of work with large tensors. There are two remedies:
[`tune`][fewstep.allocator.tune] makes glibc keep its memory (needs nothing, but memory fragments over many steps), and
[`restart_with`][fewstep.allocator.restart_with] uses tcmalloc, which is as fast without fragmentation (needs the
library and a new process, and so is meant for command-line programs).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from pathlib import Path

NAMES = ("auto", "tcmalloc", "glibc", "default")
"""The allocators that ``restart_with`` accepts."""

MARKER = "FEWSTEP_ALLOCATOR"
"""The environment variable that marks a restarted process and its children."""

_LIBRARIES = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")
_FOLDERS = ("/usr/lib/*-linux-gnu*", "/usr/lib64", "/usr/lib", "/usr/local/lib", "/lib64", "/lib")

# Numbers of mallopt's options in glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_TRIM_BYTES = 2**30
_MMAP_BYTES = (2**28, 2**25)  # before glibc 2.35 the maximum is 32 MiB

_tuned = False


def choose() -> str:
    """Choose an allocator: ``"tcmalloc"`` if it is installed, else ``"glibc"``, else ``"default"``.

    An allocator that was selected with ``LD_PRELOAD`` is kept: ``"default"``.

    Examples:
        >>> from fewstep import allocator
        >>> allocator.choose() in allocator.NAMES
        True
    """
    if current() not in NAMES:
        return "default"
    if _restarted() and current() != "tcmalloc":  # the loader refused the library and printed why
        return "glibc" if _is_glibc() else "default"
    return "tcmalloc" if _find_tcmalloc() else "glibc" if _is_glibc() else "default"


def tune() -> bool:
    """Make glibc keep the memory of large tensors, for the rest of this process.

    Call it before large tensors are made. Training of convolutional networks on a CPU is up to twice as fast; the
    process holds up to 1 GiB more memory.

    Returns:
        Whether it took effect; it does not with another allocator than glibc's.

    Examples:
        >>> from fewstep import allocator
        >>> effective = allocator.tune()
    """
    global _tuned
    if _is_glibc() and _malloc_library().startswith(("libc.", "libc-")):
        mallopt = ctypes.CDLL(None).mallopt
        kept = mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES) == 1
        _tuned = kept and any(mallopt(_M_MMAP_THRESHOLD, size) == 1 for size in _MMAP_BYTES)
    return _tuned


def current() -> str:
    """The allocator of this process: ``"tcmalloc"``, ``"glibc"`` (tuned) or ``"default"``.

    Another library that replaces malloc is returned by its file name, such as ``"libjemalloc.so.2"``.

    Examples:
        >>> from fewstep import allocator
        >>> name = allocator.current()
    """
    library = _malloc_library()
    if library.startswith("libtcmalloc"):
        return "tcmalloc"
    if _tuned:
        return "glibc"
    return "default" if library.startswith(("libc.", "libc-", "ld-musl")) or not library else library


def restart_with(name: str) -> None:
    """Switch to an allocator; for tcmalloc, the program is restarted once and this function does not return.

    Call it in the first lines of a command-line program, before torch is imported, since everything before the call is
    executed twice.

    Args:
        name: ``"auto"`` (see [`choose`][fewstep.allocator.choose]), ``"tcmalloc"``, ``"glibc"`` (see
            [`tune`][fewstep.allocator.tune]) or ``"default"``.

    Raises:
        ValueError: the allocator is unknown or not available; the message says what to install.

    Examples:
        >>> from fewstep import allocator
        >>> allocator.restart_with("default")
    """
    if name not in NAMES:
        raise ValueError(f"allocator must be one of {', '.join(NAMES)}; got {name!r}.")
    chosen = choose() if name == "auto" else name
    if chosen == "glibc" and not tune() and name != "auto":
        raise ValueError(
            f"allocator='glibc' sets options of glibc's malloc, but this process uses another one ({current()}). "
            "Use 'default', or unset LD_PRELOAD."
        )
    if chosen == "tcmalloc" and current() != "tcmalloc":
        _restart_with_tcmalloc()


def _restart_with_tcmalloc() -> None:
    library = _find_tcmalloc()
    if library is None:
        raise ValueError(
            f"allocator='tcmalloc' needs {' or '.join(_LIBRARIES)}, which was not found. Install it (Debian, Ubuntu: "
            "apt install libtcmalloc-minimal4) or use 'glibc' or 'default'."
        )
    if _restarted() or not sys.executable:
        raise ValueError(
            f"allocator='tcmalloc': {library} did not replace malloc when the program was restarted with it "
            f"(LD_PRELOAD={os.environ.get('LD_PRELOAD', '')!r}, malloc from {_malloc_library() or 'the system'!r}). "
            "Use 'glibc' or 'default'."
        )
    preloaded = [entry for entry in os.environ.get("LD_PRELOAD", "").replace(":", " ").split() if entry != library]
    environment = {
        "TCMALLOC_LARGE_ALLOC_REPORT_THRESHOLD": str(2**60),  # otherwise it reports every tensor above 1 GiB
        **os.environ,
        "LD_PRELOAD": ":".join([*preloaded, library]),
        MARKER: "tcmalloc",
    }
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, sys.orig_argv, environment)


def _restarted() -> bool:
    return os.environ.get(MARKER) == "tcmalloc"


def _find_tcmalloc() -> str | None:
    """The path of the library, or its name if only the system's loader knows its path."""
    if sys.platform != "linux":
        return None
    for library in _LIBRARIES:
        for pattern in _FOLDERS:
            for found in sorted(Path("/").glob(f"{pattern[1:]}/{library}")):
                return str(found)
    names = (ctypes.util.find_library(library.removeprefix("lib").split(".")[0]) for library in _LIBRARIES)
    return next((name for name in names if name in _LIBRARIES), None)


def _is_glibc() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def _malloc_library() -> str:
    """The file name of the library whose malloc this process calls; empty if unknown."""
    if sys.platform != "linux":
        return ""

    class Origin(ctypes.Structure):  # Dl_info of dlfcn.h
        _fields_ = (
            ("file", ctypes.c_char_p),
            ("base", ctypes.c_void_p),
            ("symbol", ctypes.c_char_p),
            ("address", ctypes.c_void_p),
        )

    program, origin = ctypes.CDLL(None), Origin()
    found = program.dladdr(ctypes.cast(program.malloc, ctypes.c_void_p), ctypes.byref(origin))
    name = Path(os.fsdecode(origin.file)).name if found and origin.file else ""
    return name if ".so" in name else ""  # a program may have its own entry for malloc

"""The memory allocator of the process: glibc's gives big tensors back to the system, and faults them in anew each time.

Zeroing and mapping those pages again costs up to half the time of work on big tensors. Two remedies: tell glibc to keep
what it has (:func:`tune`; costs nothing to try, but fragments over many steps), or run on tcmalloc, which is as fast
and stays flat (:func:`restart_with`; needs the library and a fresh process, so it is for command-line programs).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from pathlib import Path

NAMES = ("auto", "tcmalloc", "glibc", "default")
"""What :func:`restart_with` takes."""

MARKER = "FEWSTEP_ALLOCATOR"
"""Environment variable that tells a restarted process, and its children, that it has been restarted."""

_LIBRARIES = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")
_FOLDERS = ("/usr/lib/*-linux-gnu*", "/usr/lib64", "/usr/lib", "/usr/local/lib", "/lib64", "/lib")

# Numbers of mallopt's options in glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_TRIM_BYTES = 2**30
_MMAP_BYTES = (2**28, 2**25)  # before glibc 2.35 the most that is taken is 32 MiB

_tuned = False


def choose() -> str:
    """What ``"auto"`` means here: ``"tcmalloc"`` where it is installed, else ``"glibc"``, else ``"default"``.

    Someone else's allocator, put in place with ``LD_PRELOAD``, is left alone: ``"default"``.
    """
    if current() not in NAMES:
        return "default"
    if _restarted() and current() != "tcmalloc":  # the loader refused the library: see its message
        return "glibc" if _is_glibc() else "default"
    return "tcmalloc" if _find_tcmalloc() else "glibc" if _is_glibc() else "default"


def tune() -> bool:
    """Tells glibc to keep the memory of big tensors instead of returning it, for the rest of this process.

    Call it before big tensors are made. Training of convolutional networks on a CPU is up to twice as fast; the process
    holds on to up to 1 GiB more.

    Returns:
        Whether it took effect: not where the allocator is another than glibc's.
    """
    global _tuned
    if _is_glibc() and _malloc_library().startswith(("libc.", "libc-")):
        mallopt = ctypes.CDLL(None).mallopt
        kept = mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES) == 1
        _tuned = kept and any(mallopt(_M_MMAP_THRESHOLD, size) == 1 for size in _MMAP_BYTES)
    return _tuned


def current() -> str:
    """The allocator that serves this process: ``"tcmalloc"``, ``"glibc"`` (tuned) or ``"default"``.

    Another library that has taken the place of malloc is given by its file name, such as ``"libjemalloc.so.2"``.
    """
    library = _malloc_library()
    if library.startswith("libtcmalloc"):
        return "tcmalloc"
    if _tuned:
        return "glibc"
    return "default" if library.startswith(("libc.", "libc-", "ld-musl")) or not library else library


def restart_with(name: str) -> None:
    """Puts an allocator in place, once; where that is tcmalloc, the program starts itself anew and this never returns.

    For the first lines of a command-line program, before torch is imported: what was done until then is done twice.

    Args:
        name: ``"auto"`` (see :func:`choose`), ``"tcmalloc"``, ``"glibc"`` (see :func:`tune`) or ``"default"``.

    Raises:
        ValueError: there is no such allocator, or not here; tells what to install.
    """
    if name not in NAMES:
        raise ValueError(f"allocator must be one of {', '.join(NAMES)}; got {name!r}.")
    chosen = choose() if name == "auto" else name
    if chosen == "glibc" and not tune() and name != "auto":
        raise ValueError(
            f"allocator='glibc' sets options of glibc's malloc, and this process runs on another ({current()}). "
            "Take 'default', or unset LD_PRELOAD."
        )
    if chosen == "tcmalloc" and current() != "tcmalloc":
        _restart_with_tcmalloc()


def _restart_with_tcmalloc() -> None:
    library = _find_tcmalloc()
    if library is None:
        raise ValueError(
            f"allocator='tcmalloc' needs {' or '.join(_LIBRARIES)}, which was not found. Install it (Debian, Ubuntu: "
            "apt install libtcmalloc-minimal4) or take 'glibc' or 'default'."
        )
    if _restarted() or not sys.executable:
        raise ValueError(
            f"allocator='tcmalloc': {library} did not take the place of malloc when the program was started with it "
            f"(LD_PRELOAD={os.environ.get('LD_PRELOAD', '')!r}, malloc from {_malloc_library() or 'the system'!r}). "
            "Take 'glibc' or 'default'."
        )
    preloaded = [entry for entry in os.environ.get("LD_PRELOAD", "").replace(":", " ").split() if entry != library]
    environment = {
        "TCMALLOC_LARGE_ALLOC_REPORT_THRESHOLD": str(2**60),  # else it reports every tensor above 1 GiB
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
    """The path of the library, or its name if only the system's loader knows where it is."""
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
    """The file name of the library whose malloc this process calls; empty where that cannot be asked."""
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
    return name if ".so" in name else ""  # a program may hold an entry of its own for malloc

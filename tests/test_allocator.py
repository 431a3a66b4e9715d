"""The allocator of a process, tested in real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fewstep.allocator as allocator

MODULE = Path(allocator.__file__)
HAS_TCMALLOC = allocator._find_tcmalloc() is not None
IS_GLIBC = allocator._is_glibc()

# The module alone, as a program would use it before importing torch.
PROGRAM = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("allocator", sys.argv[1])
allocator = importlib.util.module_from_spec(spec)
spec.loader.exec_module(allocator)
print("start", os.getpid())
"""


def run(body: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", allocator.MARKER)}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + body, str(MODULE), *arguments],
        capture_output=True, text=True, timeout=60, env={**inherited, **environment},
    )  # fmt: skip


def lines(body: str, *arguments: str, **environment: str) -> list[str]:
    result = run(body, *arguments, **environment)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.splitlines()


def test_nothing_heavy_is_imported():
    [_, modules] = lines("print(sorted({'torch', 'numpy'} & set(sys.modules)))")
    assert modules == "[]"


def test_a_process_starts_with_the_default():
    assert lines("print(allocator.current())")[1] == "default"


def test_tune_takes_effect_on_glibc_only():
    assert lines("print(allocator.tune(), allocator.current())")[1] == ("True glibc" if IS_GLIBC else "False default")


def test_tune_avoids_page_faults_of_large_tensors():
    body = """
import ctypes, resource
if sys.argv[2] == "tuned":
    allocator.tune()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
for _ in range(20):
    block = libc.malloc(100 * 2**20)
    ctypes.memset(block, 1, 100 * 2**20)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
    default, tuned = int(lines(body, "default")[1]), int(lines(body, "tuned")[1])
    assert tuned < default / 5 if IS_GLIBC else tuned > 0


def test_choose_returns_an_available_allocator():
    expected = "tcmalloc" if HAS_TCMALLOC else "glibc" if IS_GLIBC else "default"
    assert lines("print(allocator.choose())")[1] == expected


def test_auto_selects_what_choose_returns():
    chosen, came = lines("print(allocator.choose()); allocator.restart_with('auto'); print(allocator.current())")[-2:]
    assert chosen == came


def test_default_changes_nothing():
    assert lines("allocator.restart_with('default'); print(allocator.current())")[1:] == ["default"]


def test_glibc_is_tuned_in_place_or_refused():
    result = run("allocator.restart_with('glibc'); print(allocator.current())")
    if IS_GLIBC:
        assert result.stdout.splitlines()[1:] == ["glibc"]
    else:
        assert "ValueError: allocator='glibc'" in result.stderr


def test_auto_keeps_a_malloc_that_is_not_the_systems():
    body = "allocator.tune, allocator._find_tcmalloc = lambda: False, lambda: None; allocator.restart_with('auto')"
    assert run(body).returncode == 0


def test_tcmalloc_restarts_once_with_the_same_arguments_or_says_what_to_install():
    body = "allocator.restart_with('tcmalloc'); print(allocator.current(), sys.argv[2:], sys.flags.utf8_mode)"
    if not HAS_TCMALLOC:
        assert "apt install libtcmalloc-minimal4" in run(body).stderr
        return
    first, second, end = lines(body, "two words", "--flag", PYTHONUTF8="1")
    assert first == second  # the same process id: it restarts itself, once
    assert end == "tcmalloc ['two words', '--flag'] 1"


def test_an_allocator_that_was_not_found_is_an_error_that_says_what_to_install():
    result = run("allocator._find_tcmalloc = lambda: None; allocator.restart_with('tcmalloc')")
    assert result.returncode == 1
    assert "ValueError: allocator='tcmalloc' needs libtcmalloc_minimal.so.4" in result.stderr
    assert "apt install libtcmalloc-minimal4" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's")
def test_a_library_that_does_not_replace_malloc_is_an_error_and_not_a_loop():
    body = "import ctypes.util; allocator._find_tcmalloc = lambda: ctypes.util.find_library('m'); "
    result = run(body + "allocator.restart_with('tcmalloc')")
    assert result.stdout.count("start") == 2
    assert "did not replace malloc" in result.stderr
    auto = run(body + "allocator.restart_with('auto'); print(allocator.current())")
    assert auto.stdout.splitlines()[-1] == ("glibc" if IS_GLIBC else "default"), auto.stderr


def test_preloaded_libraries_are_kept():
    if not HAS_TCMALLOC:
        assert lines("allocator.restart_with('auto'); print(os.environ.get('LD_PRELOAD'))")[1:] == ["None"]
        return
    body = "allocator.restart_with('tcmalloc'); print(os.environ['LD_PRELOAD'])"
    preloaded = lines(body, LD_PRELOAD="libm.so.6")[-1].split(":")
    assert preloaded == ["libm.so.6", allocator._find_tcmalloc()]


def test_child_processes_inherit_the_allocator():
    body = """
allocator.restart_with("auto")
import subprocess
if len(sys.argv) == 2:
    again = subprocess.run([*sys.orig_argv, "child"], capture_output=True, text=True)
    print(again.stdout.count("start"), again.stdout.split()[-1], allocator.current())
else:
    print(allocator.current())
"""
    starts, child, parent = lines(body)[-1].split()
    assert (starts, child) == ("1", parent)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"one of auto, tcmalloc, glibc, default; got 'mimalloc'"):
        allocator.restart_with("mimalloc")

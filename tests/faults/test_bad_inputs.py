"""Bad inputs to the public interface: each ends in an error that the library raises on purpose."""

from __future__ import annotations

import ast
import functools
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_inputs import TABLE, Entry

import fewstep

SOURCE = Path(fewstep.__file__).parent
SECONDS = 5.0
"""After which a call counts as hanging."""

RAW: dict[str, str] = {}
"""Bad inputs whose error is not one of fewstep's, with the reason."""


def _name(call: Any) -> str:
    return str(getattr(call, "__qualname__", call)).replace("<lambda>", "call").replace(".<locals>", "")


def _cases() -> Iterator[Any]:
    """One for each argument, with all of its bad values."""
    seen: dict[str, int] = {}
    for part in TABLE:
        for entry in part():
            for argument, values in entry.bad.items():
                name = f"{_name(entry.call)}({argument})"
                seen[name] = seen.get(name, 0) + 1
                yield pytest.param(entry, argument, values, id=name if seen[name] == 1 else f"{name}-{seen[name]}")


CASES = list(_cases())


@pytest.fixture(autouse=True)
def _limit():
    """An error in a call that hangs."""

    def hangs(*_: Any) -> None:
        raise TimeoutError(f"no answer within {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, hangs)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@functools.cache
def _raise_statements(file: str) -> list[range]:
    tree = ast.parse(Path(file).read_text())
    return [range(node.lineno, node.end_lineno + 1) for node in ast.walk(tree) if isinstance(node, ast.Raise)]


def _is_on_purpose(error: BaseException) -> bool:
    if type(error).__name__ == "TypeCheckError":  # the tests' check of annotations comes before the library's own
        return True
    last = traceback.extract_tb(error.__traceback__)[-1]
    if SOURCE not in Path(last.filename).parents:
        return False
    return any(last.lineno in lines for lines in _raise_statements(last.filename))


@pytest.mark.parametrize(("entry", "argument", "values"), CASES)
def test_bad_inputs_are_refused_in_words(entry: Entry, argument: str, values: tuple[Any, ...]):
    wrong = []
    for value in values:
        shown = f"{_name(entry.call)}({argument}={repr(value).splitlines()[0][:40]})"
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            entry.call(**{**entry.good, argument: value})
        except Exception as error:
            in_words = _is_on_purpose(error) and len(str(error)) > 20
            if isinstance(error, TimeoutError) or in_words == (shown in RAW):
                wrong.append(f"{shown}: {error!r}")
        else:
            wrong.append(f"{shown}: passes silently")
    assert not wrong, "\n".join(wrong)


def test_there_are_enough_bad_inputs():
    assert sum(len(case.values[2]) for case in CASES) >= 1000
    assert len(RAW) <= 10

"""Reading pickles of arrays and plain containers without running the code that a pickle may call."""

from __future__ import annotations

import pickle
import re
from io import BytesIO
from typing import Any

import numpy as np

_PLAIN = re.compile(r"[biuf][1248]")


def read_pickle(content: bytes, name: str) -> Any:
    """Read the numbers, strings, lists, tuples, dictionaries and numeric arrays of a pickle of Python 2 or 3.

    A pickle is a program that can call any function by name. This reader admits only the functions that store NumPy
    arrays, and replaces them by its own, so that no code of other packages runs. ASCII byte strings are converted to
    strings. Arrays are read-only.

    Args:
        content: the bytes of the pickle.
        name: for the error message.

    Raises:
        ValueError: the pickle is damaged or truncated, or calls another function.

    Examples:
        >>> read_pickle(pickle.dumps({b"data": np.arange(3), "labels": [1, 2]}), "example")
        {'data': array([0, 1, 2]), 'labels': [1, 2]}
    """
    try:
        return _plain(_Reader(BytesIO(content), encoding="bytes").load())
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
    ) as error:
        raise ValueError(f"{name} cannot be read as plain data ({error}). Download the file again.") from error


class _Dtype:
    """Replaces ``numpy.dtype`` while reading."""

    def __init__(self, name: str | bytes, *_: Any) -> None:
        self.name = name.decode("ascii") if isinstance(name, bytes) else name
        self.order = "="
        if not _PLAIN.fullmatch(self.name):
            raise pickle.UnpicklingError(f"it holds an array of {self.name}, which is not a numeric type")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        self.order = order if order in "<>" else "="

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.name)


class _Array:
    """Replaces ``numpy.ndarray`` while reading."""

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, content = state
        self.array = _from_buffer(content, kind, shape, "F" if by_columns else "C").array


def _from_buffer(content: Any, kind: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    made = _Array()
    made.array = np.frombuffer(content, kind.dtype()).reshape(shape, order="F" if order == "F" else "C")
    return made


def _scalar(kind: _Dtype, content: bytes) -> Any:
    return np.frombuffer(content, kind.dtype())[0].item()


def _bytes(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1", "bytes"):
        raise pickle.UnpicklingError(f"it holds text encoded as {encoding}")
    return text.encode("latin1")


_ADMITTED = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _bytes,
    "collections.OrderedDict": dict,
    **{
        f"numpy.{core}.{function}": ours
        for core in ("core", "_core")
        for function, ours in {
            "multiarray._reconstruct": _Array,
            "multiarray.scalar": _scalar,
            "numeric._frombuffer": _from_buffer,
        }.items()
    },
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ADMITTED:
            raise pickle.UnpicklingError(
                f"it calls {module}.{name}; only arrays, numbers, strings and plain containers are admitted, "
                "because anything else can run code"
            )
        return _ADMITTED[f"{module}.{name}"]


def _plain(found: Any) -> Any:
    """Replace stand-ins by arrays, and ASCII bytes by strings."""
    if isinstance(found, _Array):
        return found.array
    if isinstance(found, bytes):
        return found.decode("ascii") if found.isascii() else found
    if isinstance(found, dict):
        return {_plain(key): _plain(value) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return type(found)(_plain(value) for value in found)
    if isinstance(found, (int, float, complex, str, bool, type(None))):
        return found
    raise pickle.UnpicklingError(f"it holds a {type(found).__name__}")

"""Reading pickles of arrays and plain containers without running the code that a pickle may call."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any, ClassVar

import numpy as np

_PLAIN = re.compile(r"[biuf][1248]")
_MAX_DEPTH = 50
_SLACK = 2**20


def read_pickle(content: bytes, name: str) -> Any:
    """Read the numbers, strings, lists, tuples, dictionaries and numeric arrays of a pickle of Python 2 or 3.

    A pickle is a program that can call any function by name and set attributes of objects. This reader admits only the
    functions that store NumPy arrays, and replaces them by its own, so that no code of other packages runs. What a
    pickle unfolds to is bounded by its size. ASCII byte strings are converted to strings. Arrays are read-only.

    Args:
        content: the bytes of the pickle.
        name: for the error message.

    Raises:
        ValueError: the pickle is damaged or truncated, is nested too deeply, or calls another function.

    Examples:
        >>> read_pickle(pickle.dumps({b"data": np.arange(3), "labels": [1, 2]}), "example")
        {'data': array([0, 1, 2]), 'labels': [1, 2]}
    """
    try:
        return _Plain(4 * len(content) + _SLACK)(_Reader(content).load())
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
        struct.error,
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


_ADMITTED: dict[str, Any] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
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


class _Reader(pickle._Unpickler):  # the one in Python, whose instructions can be left out; that in C is closed
    """Reads a pickle with the instructions that plain data and arrays need."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, content: bytes) -> None:
        super().__init__(BytesIO(content), encoding="bytes")
        self._left = 4 * len(content) + _SLACK

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" == "_codecs.encode":
            return self._encoded
        if f"{module}.{name}" not in _ADMITTED:
            raise pickle.UnpicklingError(
                f"it calls {module}.{name}; only arrays, numbers, strings and plain containers are admitted, "
                "because anything else can run code"
            )
        return _ADMITTED[f"{module}.{name}"]

    def load_build(self) -> None:
        """Sets the state of one of our stand-ins; of other objects it would set attributes."""
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, (_Array, _Dtype)):
            raise pickle.UnpicklingError("it sets attributes of an object, which plain data have not")
        target.__setstate__(state)

    def _encoded(self, text: str, encoding: str) -> bytes:
        """Replaces ``codecs.encode``, which stores bytes as text in old protocols."""
        if encoding not in ("latin1", "latin-1", "bytes"):
            raise pickle.UnpicklingError(f"it holds text encoded as {encoding}")
        self._left -= len(text)
        if self._left < 0:
            raise pickle.UnpicklingError("it unfolds to far more bytes than it has")
        return text.encode("latin1")


def _refuse(reader: _Reader) -> None:
    raise pickle.UnpicklingError("it makes objects in ways that plain data do not need")


_Reader.dispatch[pickle.BUILD[0]] = _Reader.load_build
for _code in (
    pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.PERSID,
    pickle.BINPERSID, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
):  # fmt: skip
    _Reader.dispatch[_code[0]] = _refuse


class _Plain:
    """Replaces stand-ins by arrays, and ASCII bytes by strings, within a number of items.

    Containers that are referred to several times are copied each time, so that few bytes could unfold to many items.
    """

    def __init__(self, items: int) -> None:
        self._left = items

    def __call__(self, found: Any, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0:
            raise pickle.UnpicklingError("it unfolds to far more items than it has bytes")
        if depth > _MAX_DEPTH:
            raise pickle.UnpicklingError(f"its containers are nested more than {_MAX_DEPTH} deep")
        if isinstance(found, _Array):
            return found.array
        if isinstance(found, bytes):
            return found.decode("ascii") if found.isascii() else found
        if isinstance(found, dict):
            return {self(key, depth + 1): self(value, depth + 1) for key, value in found.items()}
        if isinstance(found, (list, tuple)):
            return type(found)(self(value, depth + 1) for value in found)
        if isinstance(found, (int, float, complex, str, bool, type(None))):
            return found
        raise pickle.UnpicklingError(f"it holds a {type(found).__name__}")

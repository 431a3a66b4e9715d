"""Reading of files of results and of curves: what the tables and figures need is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewstep.files import read_regular

_LARGEST = 2**28
_NEEDED: dict[str, tuple[Any, str]] = {
    "experiment": (str, "a text"), "seed": (int, "a whole number"), "iterations": (int, "a whole number"),
    "steps": (int, "a whole number"), "config": (dict, "settings"), "mean": (list, "a list of numbers"),
    "ci95": (list, "a list of numbers"),
}  # fmt: skip


_FIX = "Remove the file, and test the run again with fewstep evaluate."


def read_results(file: Path) -> dict[str, Any]:
    """The results of a run, as ``fewstep evaluate`` writes them.

    Raises:
        ValueError: the file is damaged; the message says what is missing.
    """
    found = read_json(file)
    for key, (kind, what) in _NEEDED.items():
        value = found.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{file} is damaged: expected {what} under {key!r}; got {repr(value)[:60]}. {_FIX}")
    for curve in [found, *_values(found, "other_norms"), *_values(found, "other_shots")]:
        for key in ("mean", "ci95"):
            numbers = curve.get(key) if isinstance(curve, Mapping) else None
            if not isinstance(numbers, list) or len(numbers) != found["steps"] + 1 or not all(map(_is_number, numbers)):
                raise ValueError(f"{file} is damaged: expected {found['steps'] + 1} numbers under {key!r}. {_FIX}")
    return found


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: the file is not a regular one or holds no object.
    """
    try:
        found = json.loads(read_regular(file, _LARGEST))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}. Remove it, or restore it.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} is damaged: expected an object; got {type(found).__name__}. Remove or restore it.")
    return found


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects in a file with one in JSON per line.

    Raises:
        ValueError: a line holds none.
    """
    rows = []
    for number, line in enumerate(read_regular(file, _LARGEST).decode(errors="replace").splitlines(), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}, line {number} is damaged: {error}. Remove that line.") from error
        if not isinstance(row, dict) or not _is_number(row.get("iteration")):
            raise ValueError(f"{file}, line {number} has no iteration. Remove that line.")
        rows.append(row)
    return rows


def _values(found: Mapping[str, Any], key: str) -> list[Any]:
    values = found.get(key)
    return list(values.values()) if isinstance(values, Mapping) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

"""What an option takes, by the type of its field."""

from __future__ import annotations

import argparse
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from fewstep.experiments.option_types import bounds_of


class Argument:
    """Marks a field that is given by its place, not by its name: `run: Annotated[Path, Argument]`."""


@dataclass(frozen=True)
class Value:
    """What an option takes.

    Args:
        read: makes the value of a word, or raises `argparse.ArgumentTypeError` with what was expected.
        shown: its placeholder in the help, such as N; the option's name if empty.
        several: whether several values may follow the option.
        switch: whether no value follows it.
    """

    read: Callable[[str], Any]
    shown: str = ""
    several: bool = False
    switch: bool = False


def marks(hint: Any) -> tuple[Any, ...]:
    """The annotations of a type hint beside the type."""
    return tuple(getattr(hint, "__metadata__", ()))


def value_of(hint: Any) -> Value:
    """What an option of this type takes.

    Args:
        hint: a number, string, path, truth value or literal, a tuple of them, or any of these or `None`.

    Raises:
        TypeError: the type is another.

    Examples:
        >>> value_of(tuple[int, ...]).several
        True
    """
    bounds, several, optional = bounds_of(hint), False, type(None) in get_args(hint)
    while get_origin(hint) in (Annotated, Union, types.UnionType, tuple):
        several = several or get_origin(hint) is tuple
        (hint,) = [part for part in get_args(hint)[: 1 if marks(hint) else None] if part not in (type(None), Ellipsis)]
    if hint is bool:
        return Value(str, switch=True)
    if get_origin(hint) is Literal:
        choices = [choice for choice in get_args(hint) if choice is not None]
        return Value(_one_of(choices), "{" + ",".join(choices) + "}", several)
    if hint in (int, float):

        def number(word: str) -> Any:
            if optional and word.lower() == "none":
                return None
            try:
                read = hint(word.replace("_", ""))
            except ValueError:
                _refuse(f"expected a {'whole ' if hint is int else ''}number", word)
            refusal = None if bounds is None else bounds.refusal(read)
            return read if refusal is None else _refuse(refusal, word)

        return Value(number, "N" if hint is int else "X", several)
    if hint in (str, Path):
        return Value(hint, "PATH" if hint is Path else "", several)
    raise TypeError(f"a field of type {hint} cannot be an option.")


def _one_of(choices: list[str]) -> Callable[[str], str]:
    def choice(word: str) -> str:
        return word if word in choices else _refuse(f"expected {' or '.join(choices)}", word)

    return choice


def _refuse(expected: str, word: str) -> Any:
    raise argparse.ArgumentTypeError(f"{expected}; got {word}.")

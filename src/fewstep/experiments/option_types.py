"""Types of options that have bounds: data classes are annotated with them, and their values are checked."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Bounds:
    """The numbers that an option takes.

    Args:
        least: the lower bound.
        included: whether the bound itself is allowed.
    """

    least: float
    included: bool = True

    def refusal(self, value: float) -> str | None:
        """What was expected, in words, if a value is out of bounds or not finite; otherwise `None`.

        Examples:
            >>> Bounds(1).refusal(0)
            'expected a number of at least 1'
            >>> Bounds(1).refusal(3) is None
            True
        """
        within = value >= self.least if self.included else value > self.least
        if within and math.isfinite(value):
            return None
        return f"expected a number {'of at least' if self.included else 'greater than'} {self.least:g}"


class NotAnOption:
    """Marks a field that the command line does not offer."""


Count: TypeAlias = Annotated[int, Bounds(1)]
"""A whole number of at least 1."""

Number: TypeAlias = Annotated[int, Bounds(0)]
"""A whole number of at least 0."""

Positive: TypeAlias = Annotated[float, Bounds(0, included=False)]
"""A number greater than 0."""

NonNegative: TypeAlias = Annotated[float, Bounds(0)]
"""A number of at least 0."""


def bounds_of(hint: Any) -> Bounds | None:
    """The bounds in a type hint, such as `Count`, `Count | None` or `tuple[Count, ...]`."""
    if isinstance(hint, Bounds):
        return hint
    parts = [*getattr(hint, "__metadata__", ()), *get_args(hint)]
    return next((found for part in parts if (found := bounds_of(part)) is not None), None)


def check_options(options: Any) -> None:
    """Checks the values of a data class, and of the data classes within it, against their types and bounds.

    Raises:
        ValueError: a value is of another type, or out of bounds.

    Examples:
        >>> @dataclass
        ... class Options:
        ...     meta_batch: Count = 4
        >>> check_options(Options(meta_batch=0))
        Traceback (most recent call last):
        ValueError: meta_batch: expected a number of at least 1; got 0.
    """
    hints = get_type_hints(type(options), include_extras=True)
    for field in fields(options):
        value, bounds = getattr(options, field.name), bounds_of(hints[field.name])
        if is_dataclass(value):
            check_options(value)
            continue
        expected = _misfit(hints[field.name], value)
        if expected is not None:
            raise ValueError(f"{field.name}: expected {expected}; got {value!r}.")
        for number in _numbers(value) if bounds is not None else ():
            refusal = bounds.refusal(number) if bounds is not None else None
            if refusal is not None:
                raise ValueError(f"{field.name}: {refusal}; got {number}.")


_KINDS: dict[Any, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "nothing"
}  # fmt: skip


def _misfit(hint: Any, value: Any) -> str | None:
    """What was expected, in words, if a value is not of the type of an option; otherwise `None`."""
    if get_origin(hint) is Annotated:
        return _misfit(get_args(hint)[0], value)
    if get_origin(hint) in (Union, types.UnionType):
        found = [_misfit(part, value) for part in get_args(hint)]
        return None if None in found else " or ".join(dict.fromkeys(text for text in found if text))
    if get_origin(hint) is Literal:
        return None if value in get_args(hint) else " or ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        kind, *others = get_args(hint)
        if not isinstance(value, (tuple, list)):
            return "a list"
        kinds = [kind] * len(value) if others in ([], [Ellipsis]) else [kind, *others]
        return next((text for part, item in zip(kinds, value, strict=False) if (text := _misfit(part, item))), None)
    if hint not in _KINDS:
        return None
    accepted: tuple[Any, ...] = (int, float) if hint is float else (hint,)
    fits = isinstance(value, accepted) and (hint is bool or not isinstance(value, bool))
    return None if fits else _KINDS[hint]


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, tuple):
        yield from (item for item in value if isinstance(item, (int, float)))

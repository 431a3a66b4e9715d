"""Checks of arguments: each error names the argument, what was expected and what came."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn


def check_whole(owner: str, least: int = 1, **values: Any) -> None:
    """Raise unless every value is a whole number of at least ``least``.

    Args:
        owner: the class or function, which the message begins with.
        least: the lower bound.
        **values: the values by the name of the argument.

    Examples:
        >>> check_whole("Episodes", shots=0)
        Traceback (most recent call last):
        ValueError: Episodes: shots must be at least 1; got 0.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not _is_whole(value):
            raise TypeError(f"{owner}: {name} must be a whole number, at least {least}; got {_shown(value)}.")
        if value < least:
            raise ValueError(f"{owner}: {name} must be at least {least}; got {value}.")


def check_number(
    owner: str, low: float = -math.inf, high: float = math.inf, above: bool = False, **values: Any
) -> None:
    """Raise unless every value is a finite number from ``low`` to ``high``.

    Args:
        owner: the class or function, which the message begins with.
        low: the lower bound.
        high: the upper bound.
        above: whether the lower bound itself is refused.
        **values: the values by the name of the argument.

    Examples:
        >>> check_number("Rollouts", 0, 1, discount=1.5)
        Traceback (most recent call last):
        ValueError: Rollouts: discount must be a number from 0 to 1; got 1.5.
    """
    if high < math.inf:
        wanted = f"a number {f'greater than {low:g} and at most' if above else f'from {low:g} to'} {high:g}"
    elif low > -math.inf:
        wanted = f"a finite number {'greater than' if above else 'of at least'} {low:g}"
    else:
        wanted = "a finite number"
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{owner}: {name} must be {wanted}; got {_shown(value)}.")
        number = float(value)
        if not math.isfinite(number) or not (low < number if above else low <= number) or number > high:
            raise ValueError(f"{owner}: {name} must be {wanted}; got {value}.")


def check_truth(owner: str, **values: Any) -> None:
    """Raise unless every value is ``True`` or ``False``."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{owner}: {name} must be True or False; got {_shown(value)}.")


def check_choice(owner: str, choices: Iterable[str], **values: Any) -> None:
    """Raise unless every value is one of the choices."""
    known = list(choices)
    for name, value in values.items():
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{owner}: {name} must be one of {known}; got {_shown(value)}.")


def check_function(owner: str, what: str, **values: Any) -> None:
    """Raise unless every value can be called.

    Args:
        owner: the class or function, which the message begins with.
        what: what was expected, such as "a function of (model, batch)".
        **values: the values by the name of the argument.
    """
    for name, value in values.items():
        if not callable(value):
            raise TypeError(f"{owner}: {name} must be {what}; got {_shown(value)}.")


def check_module(owner: str, **values: Any) -> None:
    """Raise unless every value is a module."""
    for name, value in values.items():
        if not isinstance(value, nn.Module):
            raise TypeError(f"{owner}: {name} must be a torch.nn.Module; got {_shown(value)}.")


def check_factory(owner: str, **values: Any) -> None:
    """Raise unless every value makes modules: a class of modules or a function, but not a module itself."""
    for name, value in values.items():
        if not callable(value) or isinstance(value, nn.Module):
            raise TypeError(f"{owner}: {name} must be a function that makes a module, such as nn.ReLU; got {value!r}.")


def check_widths(owner: str, empty: bool = True, **values: Any) -> None:
    """Raise unless every value is a sequence of whole numbers of at least 1.

    Args:
        owner: the class or function, which the message begins with.
        empty: whether a sequence may be empty.
        **values: the values by the name of the argument.
    """
    for name, value in values.items():
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        if not listed or not (empty or len(value)):
            some = "whole numbers" if empty else "one or more whole numbers"
            raise TypeError(f"{owner}: {name} must be a list of {some}, such as [40, 40]; got {_shown(value)}.")
        check_whole(owner, **{f"{name}[{place}]": width for place, width in enumerate(value)})


def check_range(owner: str, **values: Any) -> None:
    """Raise unless every value is a pair (low, high) of finite numbers with low <= high."""
    for name, value in values.items():
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
            raise TypeError(f"{owner}: {name} must be a pair of numbers (low, high); got {_shown(value)}.")
        check_number(owner, **{f"{name}[0]": value[0], f"{name}[1]": value[1]})
        if value[0] > value[1]:
            raise ValueError(f"{owner}: {name} must be (low, high) with low <= high; got {value}.")


def named_tensors(owner: str, **values: Any) -> dict[str, Tensor]:
    """A dictionary of tensors, made of a dictionary or of pairs of a name and a tensor.

    Args:
        owner: the class or function, which the message begins with.
        **values: one value by the name of the argument.

    Raises:
        TypeError: the value is of another kind, or is empty.
    """
    ((name, value),) = values.items()
    pairs = list(value.items() if isinstance(value, Mapping) else value if isinstance(value, Iterable) else ())
    for pair in pairs or [value]:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], Tensor):
            raise TypeError(
                f"{owner}: {name} must be a dictionary of one or more tensors, such as "
                f"dict(model.named_parameters()); got {_shown(pair)}."
            )
    return dict(pairs)


def check_attributes(owner: str, what: str, names: Sequence[str], **values: Any) -> None:
    """Raise unless every value has the named attributes.

    Args:
        owner: the class or function, which the message begins with.
        what: what was expected.
        names: the names of the attributes.
        **values: the values by the name of the argument.
    """
    for name, value in values.items():
        missing = [attribute for attribute in names if not hasattr(value, attribute)]
        if missing:
            raise TypeError(
                f"{owner}: {name} must be {what}, with {' and '.join(names)}; {_shown(value)} has no "
                f"{' and no '.join(missing)}."
            )


def check_seed(owner: str, **values: Any) -> None:
    """Raise unless every value is a whole number, which may be negative."""
    for name, value in values.items():
        if not _is_whole(value):
            raise TypeError(f"{owner}: {name} must be a whole number; got {_shown(value)}.")


def check_draw(owner: str, n: Any, generator: Any) -> None:
    """Raise unless ``n`` tasks can be drawn with this source of random numbers."""
    check_whole(owner, n=n)
    check_generator(owner, generator)


def check_generator(owner: str, generator: Any) -> None:
    """Raise unless a source of random numbers is a ``torch.Generator`` or ``None``."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"{owner}: generator must be a torch.Generator or None; got {_shown(generator)}. "
            "For a seed: torch.Generator().manual_seed(0)."
        )


def check_path(owner: str, **values: Any) -> None:
    """Raise unless every value is a path."""
    for name, value in values.items():
        if not isinstance(value, (str, os.PathLike)):
            raise TypeError(f"{owner}: {name} must be a path, a str or pathlib.Path; got {_shown(value)}.")


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _shown(value: Any) -> str:
    """A value in a message: itself if it is short, or else its type."""
    text = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"

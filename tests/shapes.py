"""Checks shapes and classes against annotations: what ``conftest.py`` has jaxtyping's import hook decorate with.

Type checkers that pick items of containers at random would draw from Python's generator, which the learner watches.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

NUMBERS = (bool, int, float, complex)


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that raises ``TypeError`` if an argument or the result does not match its annotation.

    Checked are annotations that are classes, including those of jaxtyping; not numbers, unions and containers.
    """
    signature = inspect.signature(function)
    single = {n for n, p in signature.parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    hints: dict[str, Any] = {}

    def check(name: str, value: Any) -> None:
        hint = hints.get(name)
        known = isinstance(hint, type) and hint is not Any and not getattr(hint, "_is_protocol", False)
        known = known and typing.get_origin(hint) is None  # Python 3.10 takes list[int] for a class
        if known and hint not in NUMBERS and not isinstance(value, hint):
            raise TypeError(f"{function.__qualname__}: {name} is no {hint.__name__}, but {value!r:.200}")

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not hints:  # all names in annotations are defined by the first call
            hints.update(typing.get_type_hints(function) or {"": None})
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in single:
                check(name, value)
        result = function(*args, **kwargs)
        check("return", result)
        return result

    return wrapper

"""Choosing parameters by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

Names = str | Sequence[str]
"""One or more name patterns; see :func:`select`."""


def select(patterns: Names, names: Iterable[str], purpose: str) -> list[str]:
    """The names that match, in their own order.

    Args:
        patterns: shell-style, ``*`` for any characters: ``"*"``, ``"head.*"``, ``["*", "!head.*"]``. A pattern that
            starts with ``!`` takes names out again; the last one that matches a name decides.
        names: what to choose from.
        purpose: what the choice is for, told in the error.

    Raises:
        ValueError: a pattern matches no name, or nothing is left.

    >>> select(["*", "!head.*"], ["body.weight", "head.weight"], "adapts")
    ['body.weight']
    """
    names = list(names)
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if any(not isinstance(pattern, str) for pattern in patterns):
        kinds = sorted({type(pattern).__name__ for pattern in patterns})
        raise TypeError(f"{purpose} takes names of parameters, such as 'head.*'; got a list of {', '.join(kinds)}.")
    chosen: dict[str, bool] = {}
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern.removeprefix("!"))]
        if not matches:
            raise ValueError(
                f"{purpose}={pattern!r} matches no trainable parameter; the model has {names}. "
                "Patterns are shell-style, e.g. 'head.*' or ['*', '!head.*']; frozen parameters do not count."
            )
        chosen.update(dict.fromkeys(matches, not pattern.startswith("!")))
    selected = [name for name in names if chosen.get(name)]
    if not selected:
        raise ValueError(f"{purpose}={patterns!r} leaves no parameter of {names}.")
    return selected

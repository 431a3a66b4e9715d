"""Selection of parameters by name patterns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

Names = str | Sequence[str]
"""One or more name patterns; see [`select`][fewstep.learner.select]."""


def select(patterns: Names, names: Iterable[str], purpose: str) -> list[str]:
    """Select the names that match shell-style patterns, in the order of ``names``.

    Args:
        patterns: one or more patterns in which ``*`` matches any characters: ``"*"``, ``"head.*"``,
            ``["*", "!head.*"]``. A pattern that starts with ``!`` removes the names that it matches. If several
            patterns match a name, the last one decides.
        names: the names to select from.
        purpose: the name of the argument, for the error message.

    Returns:
        The selected names.

    Raises:
        TypeError: a pattern is not a string.
        ValueError: a pattern matches no name, or no name is selected.

    Examples:
        >>> select(["*", "!head.*"], ["body.weight", "head.weight"], "adapts")
        ['body.weight']
    """
    names = list(names)
    if not isinstance(patterns, Iterable):
        raise TypeError(f"{purpose} takes names of parameters, such as 'head.*'; got {patterns!r}.")
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
                "Patterns are shell-style, e.g. 'head.*' or ['*', '!head.*']; frozen parameters are not trainable."
            )
        chosen.update(dict.fromkeys(matches, not pattern.startswith("!")))
    selected = [name for name in names if chosen.get(name)]
    if not selected:
        raise ValueError(f"{purpose}={patterns!r} leaves no parameter of {names}.")
    return selected

"""Different rules for different parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from fewstep.adaptation.rules.rule import Params, Rule, is_rule


class PerParameter(nn.Module):
    """Different rules for different parameters, selected by name patterns.

    Args:
        rules: a dictionary from shell-style patterns, such as ``"head.*"``, to the rule for the parameters whose names
            match. The first matching pattern decides, so ``"*"`` comes last.

    Raises:
        TypeError: a value is not a rule.
        ValueError: there are no patterns; or, when the learner is made, a pattern or an adapted parameter matches
            nothing.

    Examples:
        >>> import torch, fewstep
        >>> rule = PerParameter({"head.*": fewstep.Adam(0.01), "*": fewstep.SGD(0.1)})
        >>> rule.names_by_pattern(["body.weight", "head.weight", "head.bias"])
        {'head.*': ('head.weight', 'head.bias'), '*': ('body.weight',)}
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        super().__init__()
        if not isinstance(rules, Mapping) or not rules:
            raise ValueError(
                f"PerParameter: expected a dictionary from patterns to rules, such as "
                f'{{"head.*": fewstep.Adam(0.01), "*": fewstep.SGD(0.1)}}; got {rules!r}.'
            )
        for pattern, rule in rules.items():
            if not isinstance(pattern, str) or pattern.startswith("!"):
                raise ValueError(
                    f"PerParameter: a pattern is a string without '!', such as 'head.*'; got {pattern!r}. The first "
                    "pattern that matches a name decides, so put exceptions first."
                )
            if not is_rule(rule):
                raise TypeError(
                    f"PerParameter: {pattern!r} needs a rule, such as fewstep.Adam(0.01); got {_shown(rule)}."
                )
        self.patterns: tuple[str, ...] = tuple(rules)
        self.rules: tuple[Any, ...] = tuple(rules.values())
        for place, rule in enumerate(self.rules):
            if isinstance(rule, nn.Module):  # registers its parameters
                self.add_module(str(place), rule)

    def names_by_pattern(self, names: Any) -> dict[str, tuple[str, ...]]:
        """Group parameter names by the pattern that decides for them.

        Args:
            names: the names of the adapted parameters.

        Returns:
            A dictionary from each pattern to its names.

        Raises:
            ValueError: a pattern or a name matches nothing.
        """
        return dict(zip(self.patterns, _groups(self.patterns, tuple(names)), strict=True))

    @property
    def carry(self) -> Callable[[Any], None] | None:
        """The methods ``carry`` of the rules as one function, or ``None``; see [`Rule`][fewstep.Rule]."""
        own = [getattr(rule, "carry", None) for rule in self.rules]

        def each(states: Any) -> None:
            for carry, state in zip(own, states, strict=True):
                if carry:
                    carry(state)

        return each if any(own) else None

    def init(self, params: Params) -> tuple[Any, ...]:
        groups = _groups(self.patterns, tuple(params))
        return tuple(
            rule.init({name: params[name] for name in names}) for rule, names in zip(self.rules, groups, strict=True)
        )

    def update(
        self, params: Params, grads: Params, state: tuple[Any, ...], step: int, loss: Tensor
    ) -> tuple[Params, tuple[Any, ...]]:
        groups = _groups(self.patterns, tuple(params))
        moved, states = {}, []
        for rule, names, own in zip(self.rules, groups, state, strict=True):
            part = {name: params[name] for name in names}
            part, own = rule.update(part, {name: grads[name] for name in names}, own, step, loss)
            moved.update(part)
            states.append(own)
        return {name: moved[name] for name in params}, tuple(states)

    def extra_repr(self) -> str:
        return ", ".join(f"({place}) for {pattern!r}" for place, pattern in enumerate(self.patterns))


@functools.lru_cache(maxsize=64)  # called in every inner step
def _groups(patterns: tuple[str, ...], names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The names that each pattern decides for, in their order in ``names``."""
    choice = {name: next((p for p in patterns if fnmatchcase(name, p)), None) for name in names}
    without = [name for name, pattern in choice.items() if pattern is None]
    if without:
        raise ValueError(
            f"PerParameter: no pattern of {list(patterns)} matches the adapted parameter(s) {without}. Add a pattern, "
            "such as '*' as the last one, or leave these parameters out of adapts."
        )
    for pattern in patterns:
        if pattern not in choice.values():
            hidden = [name for name in names if fnmatchcase(name, pattern)]
            if hidden:
                raise ValueError(
                    f"PerParameter: {pattern!r} gets no parameter, since earlier patterns match all of its names: "
                    f"{ {name: choice[name] for name in hidden} }. The first pattern that matches a name decides; put "
                    "special patterns before general ones, or leave this one out."
                )
            raise ValueError(
                f"PerParameter: {pattern!r} matches none of the adapted parameters {list(names)}. Patterns are "
                "shell-style, e.g. 'head.*'."
            )
    return tuple(tuple(name for name in names if choice[name] == pattern) for pattern in patterns)


def _shown(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__

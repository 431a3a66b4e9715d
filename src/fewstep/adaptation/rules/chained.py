"""Composition of gradient transforms and a rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fewstep.adaptation.rules.rule import Params, Rule, is_rule
from fewstep.adaptation.rules.transforms import Transform


def chain(*parts: Transform | Rule) -> Chain:
    """Combine gradient transforms and a rule, the last part, into one rule.

    Args:
        *parts: any number of [`Transform`][fewstep.Transform], such as ``clip_by_norm(1.0)``, which are applied in
            order, and one [`Rule`][fewstep.Rule].

    Returns:
        The combined rule.

    Raises:
        TypeError: the last part is not a rule, or another part is not a transform.

    Examples:
        >>> import fewstep
        >>> chain(fewstep.clip_by_norm(1.0), fewstep.Adam(0.01))
        Chain(
          (0): clip_by_norm(max_norm=1.0)
          (1): Adam(lr=0.01, betas=(0.9, 0.999))
        )
    """
    return Chain(*parts)


class Chain(nn.Module):
    """The rule that [`chain`][fewstep.chain] returns: its last part gets transformed gradients."""

    def __init__(self, *parts: Transform | Rule) -> None:
        super().__init__()
        if not parts or not is_rule(parts[-1]):
            raise TypeError(
                f"chain: the last part must be a rule, such as fewstep.Adam(0.01); got {_shown(parts[-1:])}."
            )
        for place, part in enumerate(parts[:-1]):
            if not _is_transform(part):
                why = " Only the last part may be a rule." if is_rule(part) else ""
                raise TypeError(
                    f"chain: every part but the last must be a transform with init and transform, such as "
                    f"fewstep.clip_by_norm(1.0); part {place} is {_shown((part,))}.{why}"
                )
        self.parts: tuple[Any, ...] = parts
        for place, part in enumerate(parts):
            if isinstance(part, nn.Module):  # registers its parameters
                self.add_module(str(place), part)

    @property
    def carry(self) -> Callable[[Any], None] | None:
        """The method ``carry`` of the rule, or ``None``; see [`Rule`][fewstep.Rule]."""
        own = getattr(self.parts[-1], "carry", None)
        return own and (lambda state: own(state[-1]))

    def init(self, params: Params) -> tuple[Any, ...]:
        return tuple(part.init(params) for part in self.parts)

    def update(
        self, params: Params, grads: Params, state: tuple[Any, ...], step: int, loss: Tensor
    ) -> tuple[Params, tuple[Any, ...]]:
        grads = {name: grads[name] for name in params}
        states = []
        for part, own in zip(self.parts[:-1], state[:-1], strict=True):
            grads, own = part.transform(grads, params, own, step)
            states.append(own)
        moved, last = self.parts[-1].update(params, grads, state[-1], step, loss)
        return moved, (*states, last)


def _is_transform(part: object) -> bool:
    return not isinstance(part, type) and all(callable(getattr(part, name, None)) for name in ("init", "transform"))


def _shown(parts: tuple[Any, ...]) -> str:
    if not parts:
        return "no part"
    name = getattr(parts[0], "__name__", None)
    if name is None:
        return type(parts[0]).__name__
    return f"{name} itself, which must be called first: {name}(...)"

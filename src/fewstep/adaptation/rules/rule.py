"""What an update rule is."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

Params = dict[str, Tensor]


class Rule(Protocol):
    """One inner update. A rule with learned weights is also an ``nn.Module`` (as all of this package are).

    A rule may also have ``carry(state)``: while training, the first task of each meta-batch is adapted to once ahead,
    and ``carry`` is given the state at the end of that, to keep in buffers what this meta-batch and later ones start
    from.
    """

    def init(self, params: Params) -> Any:
        """The state before the first step: any pytree of tensors, e.g. a momentum per parameter."""
        ...

    def update(self, params: Params, grads: Params, state: Any, step: int, loss: Tensor) -> tuple[Params, Any]:
        """New parameters and state after inner step ``step`` (from 0), at whose start the support loss is ``loss``."""
        ...


def is_rule(value: object) -> bool:
    """Whether a value has the methods of a :class:`Rule`; the class of a rule is not a rule."""
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in ("init", "update"))

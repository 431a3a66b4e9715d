"""The interface of update rules."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

Params = dict[str, Tensor]
"""Parameters, or their gradients, by name."""


class Rule(Protocol):
    """The interface of an inner update: ``init`` makes the state, ``update`` takes a step.

    A rule with learned weights is an ``nn.Module``, as are all rules of this library. A rule may also have a method
    ``carry(state)``, for state that continues from task to task. During training, the learner adapts to the first task
    of each meta-batch and passes the final state to ``carry``, which stores it in buffers.

    Examples:
        >>> import torch, fewstep
        >>> class SignDescent:
        ...     def init(self, params):
        ...         return None
        ...
        ...     def update(self, params, grads, state, step, loss):
        ...         return {name: value - 0.5 * grads[name].sign() for name, value in params.items()}, state
        >>> theta, x = {"w": torch.tensor(3.0)}, torch.tensor(1.0)
        >>> fewstep.adapt(lambda params, x: (params["w"] * x).square(), theta, x, SignDescent(), steps=2)["w"].item()
        2.0
    """

    def init(self, params: Params) -> Any:
        """Make the state before the first step.

        Args:
            params: the adapted parameters, φ_0.

        Returns:
            Any pytree of tensors, such as a momentum for each parameter, or ``None``.
        """
        ...

    def update(self, params: Params, grads: Params, state: Any, step: int, loss: Tensor) -> tuple[Params, Any]:
        """Take one inner step.

        Args:
            params: the adapted parameters before the step.
            grads: the gradient of the support loss, with the names of ``params``.
            state: the state before the step.
            step: the index of the inner step, from 0.
            loss: the support loss before the step, a scalar.

        Returns:
            The parameters and the state after the step.
        """
        ...


def is_rule(value: object) -> bool:
    """Whether a value has the methods of a [`Rule`][fewstep.Rule]; false for a class."""
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in ("init", "update"))

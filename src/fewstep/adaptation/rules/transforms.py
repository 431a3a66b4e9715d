"""Gradient transforms that are applied before a rule: ``fewstep.chain(clip_by_norm(1.0), Adam(0.01))``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fewstep.adaptation.rules.arithmetic import plus, safe_sqrt, times
from fewstep.adaptation.rules.rates import Rate, described, keep_rate, rate_at
from fewstep.adaptation.rules.rule import Params


class Transform(Protocol):
    """The interface of gradient transforms, which change the gradients before the rule uses them.

    A transform is a pure function, like a [`Rule`][fewstep.Rule], and an ``nn.Module`` if it has learned weights.

    Examples:
        >>> import torch, fewstep
        >>> class Sign:
        ...     def init(self, params):
        ...         return None
        ...
        ...     def transform(self, grads, params, state, step):
        ...         return {name: value.sign() for name, value in grads.items()}, state
        >>> rule = fewstep.chain(Sign(), fewstep.SGD(0.5))
        >>> theta, x = {"w": torch.tensor(3.0)}, torch.tensor(1.0)
        >>> fewstep.adapt(lambda params, x: (params["w"] * x).square(), theta, x, rule, steps=2)["w"].item()
        2.0
    """

    def init(self, params: Params) -> Any:
        """Make the state before the first step.

        Args:
            params: the adapted parameters, φ_0.

        Returns:
            Any pytree of tensors, or ``None``.
        """
        ...

    def transform(self, grads: Params, params: Params, state: Any, step: int) -> tuple[Params, Any]:
        """Transform the gradients of one inner step.

        Args:
            grads: the gradients by name.
            params: the adapted parameters before the step.
            state: the state before the step.
            step: the index of the inner step, from 0.

        Returns:
            The new gradients, with the same names, and the new state.
        """
        ...


def clip_by_norm(max_norm: Rate) -> Transform:
    """Scale the gradients such that their joint norm is at most c, as ``torch.nn.utils.clip_grad_norm_`` does.

    g·min(1, c/(‖g‖ + 1e-6)), where ‖g‖ is the norm over all parameters together. The derivative is that of the formula;
    where all gradients are 0, it is that of the identity.

    Args:
        max_norm: c: a number, scalar tensor, learned ``nn.Parameter``, or schedule ``step -> number``.

    Raises:
        TypeError: ``max_norm`` has the wrong type.
        ValueError: ``max_norm`` is not positive.

    Examples:
        >>> import torch
        >>> clip = clip_by_norm(1.0)
        >>> clip.transform({"a": torch.tensor(3.0), "b": torch.tensor(4.0)}, {}, None, 0)[0]
        {'a': tensor(0.6000), 'b': tensor(0.8000)}
    """
    return _Stateless(_clipped_by_norm, "max_norm", max_norm, positive=True)


def clip_by_value(limit: Rate) -> Transform:
    """Clamp every entry of the gradients to [−c, c], as ``torch.nn.utils.clip_grad_value_`` does.

    Args:
        limit: c: a number, scalar tensor, learned ``nn.Parameter``, or schedule ``step -> number``.

    Raises:
        TypeError: ``limit`` has the wrong type.
        ValueError: ``limit`` is not positive.

    Examples:
        >>> import torch
        >>> clip_by_value(1.0).transform({"a": torch.tensor([0.5, -3.0])}, {}, None, 0)[0]
        {'a': tensor([ 0.5000, -1.0000])}
    """
    return _Stateless(_clipped_by_value, "limit", limit, positive=True)


def decay_weights(rate: Rate) -> Transform:
    """Add the gradient of an L2 penalty: g + λ·φ.

    Args:
        rate: λ: a number, scalar tensor, learned ``nn.Parameter``, or schedule ``step -> number``.

    Raises:
        TypeError: ``rate`` has the wrong type.
        ValueError: ``rate`` is negative.

    Examples:
        >>> import torch
        >>> decay_weights(0.1).transform({"a": torch.tensor(1.0)}, {"a": torch.tensor(2.0)}, None, 0)[0]
        {'a': tensor(1.2000)}
    """
    return _Stateless(_with_decay, "rate", rate)


def scale_by(factor: Rate) -> Transform:
    """Multiply the gradients by a factor: c·g.

    Args:
        factor: c: a number, scalar tensor, learned ``nn.Parameter``, or schedule ``step -> number``.

    Raises:
        TypeError: ``factor`` has the wrong type.
        ValueError: ``factor`` is negative.

    Examples:
        >>> import torch
        >>> scale_by(lambda step: 1 / (step + 1)).transform({"a": torch.tensor(3.0)}, {}, None, 2)[0]
        {'a': tensor(1.)}
    """
    return _Stateless(_scaled, "factor", factor)


class _Stateless(nn.Module):
    """A transform that is a function of the gradients, the parameters and one rate."""

    def __init__(
        self,
        function: Callable[[Params, Params, float | Tensor], Params],
        argument: str,
        rate: Rate,
        positive: bool = False,
    ) -> None:
        super().__init__()
        self.function, self.argument = function, argument
        keep_rate(self, argument, rate, positive)

    def init(self, params: Params) -> None:
        return None

    def transform(self, grads: Params, params: Params, state: None, step: int) -> tuple[Params, None]:
        return self.function(grads, params, rate_at(self, self.argument, step)), state

    def _get_name(self) -> str:
        return _NAMES[self.function]

    def extra_repr(self) -> str:
        return described(self, **{self.argument: None})


def _clipped_by_norm(grads: Params, params: Params, max_norm: float | Tensor) -> Params:
    norm = safe_sqrt(torch.stack([_squares(value).sum() for value in grads.values()]).sum())
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    return {name: times(scale, value) for name, value in grads.items()}


def _clipped_by_value(grads: Params, params: Params, limit: float | Tensor) -> Params:
    if isinstance(limit, Tensor):
        limits = {name: limit.to(value.dtype) for name, value in grads.items()}
        return {name: torch.clamp(value, -limits[name], limits[name]) for name, value in grads.items()}
    return {name: torch.clamp(value, -limit, limit) for name, value in grads.items()}


def _with_decay(grads: Params, params: Params, rate: float | Tensor) -> Params:
    return plus(grads, params, rate)


def _scaled(grads: Params, params: Params, factor: float | Tensor) -> Params:
    return {name: times(factor, value) for name, value in grads.items()}


_NAMES: dict[Any, str] = {
    _clipped_by_norm: "clip_by_norm",
    _clipped_by_value: "clip_by_value",
    _with_decay: "decay_weights",
    _scaled: "scale_by",
}


def _squares(value: Tensor) -> Tensor:
    return value.abs().square() if value.is_complex() else value.square()

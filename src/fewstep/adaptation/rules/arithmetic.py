"""Arithmetic of the rules: dictionaries of tensors, factors that may be tensors, and a square root."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.adaptation.rules.rule import Params


def zeros(params: Params) -> Params:
    """A tensor of zeros for each parameter."""
    return {name: torch.zeros_like(value) for name, value in params.items()}


def times(factor: float | Tensor, value: Tensor) -> Tensor:
    """``factor · value`` in the dtype of ``value``, also if the scalar tensor ``factor`` has higher precision."""
    return factor.to(value.dtype) * value if isinstance(factor, Tensor) else factor * value


def plus(values: Params, others: Params, factor: float | Tensor) -> Params:
    """``values + factor · others``."""
    if isinstance(factor, Tensor):
        return {name: value + times(factor, others[name]) for name, value in values.items()}
    return {name: torch.add(value, others[name], alpha=factor) for name, value in values.items()}


def minus(values: Params, others: Params, factor: float | Tensor) -> Params:
    """``values − factor · others``."""
    if isinstance(factor, Tensor):
        return {name: value - times(factor, others[name]) for name, value in values.items()}
    return {name: torch.sub(value, others[name], alpha=factor) for name, value in values.items()}


def averaged(decay: float, averages: Params, values: Params) -> Params:
    """Exponential moving averages: ``decay · averages + (1 − decay) · values``."""
    return {name: decay * averages[name] + (1 - decay) * value for name, value in values.items()}


def averaged_squares(decay: float, averages: Params, values: Params) -> Params:
    """Exponential moving averages of squares: ``decay · averages + (1 − decay) · values²``."""
    return {name: decay * averages[name] + (1 - decay) * squared(value) for name, value in values.items()}


def safe_sqrt(x: Tensor) -> Tensor:
    """√x, with all derivatives 0 where x is exactly 0.

    The derivative of √ is infinite at 0. Second moments are 0 where a gradient is exactly 0, for example after a ReLU
    that no example activates, and ∞·0 would make the whole meta-gradient NaN. The rules use √v only in g/(√v + ε),
    whose derivative with respect to g at 0 is exact with this convention.

    Examples:
        >>> import torch
        >>> x = torch.tensor([4.0, 0.0], requires_grad=True)
        >>> torch.autograd.grad(safe_sqrt(x).sum(), x)
        (tensor([0.2500, 0.0000]),)
    """
    zero = x == 0
    # Filled before the root too: its derivative is evaluated even where the outer fill ignores it.
    return x.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def squared(value: Tensor) -> Tensor:
    """value².

    Raises:
        TypeError: the value is complex; the adaptive rules are defined for real parameters.
    """
    if value.is_complex():
        raise TypeError(
            "Adam, RMSprop, Adagrad and Adadelta do not support complex parameters. Adapt them with fewstep.SGD "
            "(fewstep.PerParameter selects a rule by parameter name), or store them as pairs of real numbers."
        )
    return value.square()

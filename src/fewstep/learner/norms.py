"""Normalisation layers whose second derivative is right under vmap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class SeparateAffine(TorchFunctionMode):
    """Inside, layer, batch and instance norm normalise first, and scale and shift as operations of their own.

    Differentiated twice under vmap, PyTorch's fused operations give a wrong gradient as soon as the scale differs
    between tasks: their backward takes the mean and the deviation for constants
    (https://github.com/pytorch/functorch/issues/534). Apart, the same numbers have the right derivatives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.used = False
        """Whether there was such a layer with a scale or a shift."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        separate = _SEPARATE.get(func)
        if separate is None:
            return func(*args, **(kwargs or {}))
        result, affine = separate(*args, **(kwargs or {}))
        self.used = self.used or affine
        return result


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, bool]:
    return _affine(functional.layer_norm(input, normalized_shape, None, None, eps), weight, bias)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *args: Any,
    **options: Any,
) -> tuple[Tensor, bool]:
    normal = functional.batch_norm(input, running_mean, running_var, None, None, *args, **options)
    return _affine(normal, *_per_channel(input, weight, bias))


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *args: Any,
    **options: Any,
) -> tuple[Tensor, bool]:
    normal = functional.instance_norm(input, running_mean, running_var, None, None, *args, **options)
    return _affine(normal, *_per_channel(input, weight, bias))


def _per_channel(input: Tensor, *affine: Tensor | None) -> list[Tensor | None]:
    return [None if value is None else value.view(-1, *[1] * (input.ndim - 2)) for value in affine]


def _affine(normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, bool]:
    scaled = normal if weight is None else normal * weight
    return scaled if bias is None else scaled + bias, not (weight is None and bias is None)


_SEPARATE: dict[Callable[..., Any], Callable[..., tuple[Tensor, bool]]] = {
    functional.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    functional.batch_norm: _batch_norm,
    functional.instance_norm: _instance_norm,
}

"""Normalisation layers whose second derivative is right under vmap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def twice_differentiable_norms() -> AbstractContextManager[Any]:
    """Inside, and under vmap, layer, batch and instance norm scale and shift in operations of their own.

    Differentiated twice under vmap, PyTorch's fused operations give a wrong gradient as soon as the scale differs
    between tasks: their backward takes the mean and the deviation for constants
    (https://github.com/pytorch/functorch/issues/534). Apart, the same numbers have the right derivatives.
    """
    under_vmap = any(level.key() == TransformType.Vmap for level in retrieve_all_functorch_interpreters())
    return _SeparateAffine() if under_vmap else nullcontext()


class _SeparateAffine(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _SEPARATE.get(func, func)(*args, **(kwargs or {}))


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return _affine(functional.layer_norm(input, normalized_shape, None, None, eps), weight, bias)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *args: Any,
    **options: Any,
) -> Tensor:
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
) -> Tensor:
    normal = functional.instance_norm(input, running_mean, running_var, None, None, *args, **options)
    return _affine(normal, *_per_channel(input, weight, bias))


def _per_channel(input: Tensor, *affine: Tensor | None) -> list[Tensor | None]:
    return [None if value is None else value.view(-1, *[1] * (input.ndim - 2)) for value in affine]


def _affine(normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = normal if weight is None else normal * weight
    return scaled if bias is None else scaled + bias


_SEPARATE: dict[Callable[..., Any], Callable[..., Tensor]] = {
    functional.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    functional.batch_norm: _batch_norm,
    functional.instance_norm: _instance_norm,
}

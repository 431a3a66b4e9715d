"""Normalisation with correct second derivatives under vmap.

Differentiated twice under vmap, PyTorch's fused operations give a wrong gradient if the scale differs between tasks:
their backward treats mean and deviation as constants (https://github.com/pytorch/functorch/issues/534). With scale and
shift as separate operations, the result is the same and the derivatives are correct.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.pytorch import under_vmap

aten = torch.ops.aten


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    if not under_vmap():
        return functional.layer_norm(input, normalized_shape, weight, bias, eps)
    return _affine(functional.layer_norm(input, normalized_shape, None, None, eps), weight, bias)


def _native_layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, ...]:
    if not under_vmap():
        return torch.native_layer_norm(input, normalized_shape, weight, bias, eps)
    normal, *statistics = torch.native_layer_norm(input, normalized_shape, None, None, eps)
    return _affine(normal, weight, bias), *statistics


def _statistics_first(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Replace ``batch_norm`` or ``instance_norm`` of ``torch.nn.functional``, whose statistics precede the scale."""

    def norm(
        input: Tensor,
        running_mean: Tensor | None = None,
        running_var: Tensor | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        *args: Any,
        **options: Any,
    ) -> Tensor:
        if not under_vmap():
            return function(input, running_mean, running_var, weight, bias, *args, **options)
        normal = function(input, running_mean, running_var, None, None, *args, **options)
        return _affine(normal, *_per_channel(input, weight, bias))

    return norm


def _scale_first(function: Callable[..., Any]) -> Callable[..., Any]:
    """Replace ``batch_norm`` or ``instance_norm`` of ``torch``, whose scale precedes the statistics."""

    def norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, *args: Any, **options: Any) -> Any:
        if not under_vmap():
            return function(input, weight, bias, *args, **options)
        found = function(input, None, None, *args, **options)
        if isinstance(found, Tensor):
            return _affine(found, *_per_channel(input, weight, bias))
        return _affine(found[0], *_per_channel(input, weight, bias)), *found[1:]

    return norm


def _contiguous_first(function: Callable[..., Any]) -> Callable[..., Any]:
    """Group norm: under vmap PyTorch's kernel asks for a memory format, which raises for images with channels last."""

    def norm(input: Tensor, *args: Any, **options: Any) -> Any:
        return function(input.contiguous() if under_vmap() else input, *args, **options)

    return norm


def _per_channel(input: Tensor, *affine: Tensor | None) -> list[Tensor | None]:
    return [None if value is None else value.view(-1, *[1] * (input.ndim - 2)) for value in affine]


def _affine(normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = normal if weight is None else normal * weight
    return scaled if bias is None else scaled + bias


NORMS: dict[Any, Callable[..., Any]] = {
    functional.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    torch.native_layer_norm: _native_layer_norm,
    functional.batch_norm: _statistics_first(functional.batch_norm),
    functional.instance_norm: _statistics_first(functional.instance_norm),
    torch.batch_norm: _scale_first(torch.batch_norm),
    torch.native_batch_norm: _scale_first(torch.native_batch_norm),
    torch.instance_norm: _scale_first(torch.instance_norm),
    functional.group_norm: _contiguous_first(functional.group_norm),
    torch.group_norm: _contiguous_first(torch.group_norm),
    torch.native_group_norm: _contiguous_first(torch.native_group_norm),
}
"""The replacement for each of PyTorch's norms."""

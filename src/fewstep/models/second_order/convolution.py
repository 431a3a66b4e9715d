"""Convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fewstep.models.second_order.operation import (
    Operation,
    add,
    into_channels,
    into_examples,
    into_rows,
    layout,
    out_of_channels,
    out_of_examples,
    out_of_rows,
)

aten = torch.ops.aten


def convolve(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """The convolution of images with square filters of odd size, padded by zeros to keep the size if the stride is 1.

    Args:
        x: ``[examples, channels, height, width]``.
        weight: ``[filters, channels, size, size]``.
        stride: of the filters, in both directions.

    >>> convolve(torch.rand(2, 3, 28, 28), torch.rand(8, 3, 3, 3), stride=2).shape
    torch.Size([2, 8, 14, 14])
    """
    return _Convolve.apply(x, weight, stride, 1)


# Convolution is linear in the images and in the weights, and so are its two gradients, each of which is the derivative
# of another: the three are closed under differentiation.


class _Convolve(Operation):
    """y = W ∗ x."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
        return torch.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, *ctx.options = inputs
        Operation.keep(ctx, x, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        if g is None:
            return None, None, None, None
        x, weight = ctx.saved_tensors
        of_x = _InputGradient.apply(g, weight, x.detach(), *ctx.options) if ctx.needs_input_grad[0] else None
        return of_x, _WeightGradient.apply(g, x, weight.detach(), *ctx.options), None, None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dw: Tensor | None, *_: Any) -> Tensor | None:
        x, weight = ctx.saved_tensors
        of_x = None if dx is None else _Convolve.apply(dx, weight, *ctx.options)
        return add(of_x, None if dw is None else _Convolve.apply(x, dw, *ctx.options))

    @staticmethod
    def vmap(info: Any, dims: Any, x: Tensor, weight: Tensor, stride: int, groups: int) -> tuple[Tensor, int]:
        tasks = info.batch_size
        if dims[1] is None:
            y = _Convolve.apply(into_examples(x, dims[0], tasks), weight, stride, groups)
            return out_of_examples(y, tasks), 1
        x, weight = into_channels(x, dims[0], tasks), into_rows(weight, dims[1], tasks)
        return out_of_channels(_Convolve.apply(x, weight, stride, groups * tasks), tasks), 1


class _InputGradient(Operation):
    """The gradient for x of ⟨g, W ∗ x⟩; x itself only tells its shape."""

    @staticmethod
    def forward(g: Tensor, weight: Tensor, x: Tensor, stride: int, groups: int) -> Tensor:
        return _convolution_backward(g, x, weight, stride, groups, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.stride, ctx.groups = inputs
        Operation.keep(ctx, *tensors)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, ...]:
        if v is None:
            return None, None, None, None, None
        g, weight, _ = ctx.saved_tensors
        options = ctx.stride, ctx.groups
        of_weight = _WeightGradient.apply(g, v, weight.detach(), *options)
        return _Convolve.apply(v, weight, *options), of_weight, None, None, None

    @staticmethod
    def jvp(ctx: Any, dg: Tensor | None, dw: Tensor | None, *_: Any) -> Tensor | None:
        g, weight, x = ctx.saved_tensors
        options = ctx.stride, ctx.groups
        of_g = None if dg is None else _InputGradient.apply(dg, weight, x, *options)
        return add(of_g, None if dw is None else _InputGradient.apply(g, dw, x, *options))

    @staticmethod
    def vmap(
        info: Any, dims: Any, g: Tensor, weight: Tensor, x: Tensor, stride: int, groups: int
    ) -> tuple[Tensor, int]:
        tasks = info.batch_size
        if dims[1] is None:
            g, x = into_examples(g, dims[0], tasks), into_examples(x, dims[2], tasks)
            return out_of_examples(_InputGradient.apply(g, weight, x, stride, groups), tasks), 1
        g, x, weight = (
            into_channels(g, dims[0], tasks),
            into_channels(x, dims[2], tasks),
            into_rows(weight, dims[1], tasks),
        )
        return out_of_channels(_InputGradient.apply(g, weight, x, stride, groups * tasks), tasks), 1


class _WeightGradient(Operation):
    """The gradient for W of ⟨g, W ∗ x⟩; W itself only tells its shape."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
        return _convolution_backward(g, x, weight, stride, groups, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.stride, ctx.groups = inputs
        Operation.keep(ctx, *tensors)

    @staticmethod
    def backward(ctx: Any, u: Tensor | None) -> tuple[Tensor | None, ...]:
        if u is None:
            return None, None, None, None, None
        g, x, _ = ctx.saved_tensors
        options = ctx.stride, ctx.groups
        of_x = _InputGradient.apply(g, u, x.detach(), *options) if ctx.needs_input_grad[1] else None
        return _Convolve.apply(x, u, *options), of_x, None, None, None

    @staticmethod
    def jvp(ctx: Any, dg: Tensor | None, dx: Tensor | None, *_: Any) -> Tensor | None:
        g, x, weight = ctx.saved_tensors
        options = ctx.stride, ctx.groups
        of_g = None if dg is None else _WeightGradient.apply(dg, x, weight, *options)
        return add(of_g, None if dx is None else _WeightGradient.apply(g, dx, weight, *options))

    @staticmethod
    def vmap(
        info: Any, dims: Any, g: Tensor, x: Tensor, weight: Tensor, stride: int, groups: int
    ) -> tuple[Tensor, int]:
        tasks = info.batch_size
        g, x, weight = (
            into_channels(g, dims[0], tasks),
            into_channels(x, dims[1], tasks),
            into_rows(weight, dims[2], tasks),
        )
        return out_of_rows(_WeightGradient.apply(g, x, weight, stride, groups * tasks), tasks), 0


def _convolution_backward(g: Tensor, x: Tensor, weight: Tensor, stride: int, groups: int, wanted: int) -> Tensor:
    if wanted == 0 and not x.is_contiguous():  # only its shape and layout count, and the kernel would copy it
        x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout(x))
    padding, mask = weight.shape[-1] // 2, [wanted == 0, wanted == 1, False]
    options = [stride, stride], [padding, padding], [1, 1], False, [0, 0], groups
    return aten.convolution_backward(g, x, weight, None, *options, mask)[wanted]

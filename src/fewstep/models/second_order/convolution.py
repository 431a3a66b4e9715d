"""Convolution with closed-form first and second derivatives."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.models.second_order import products
from fewstep.models.second_order.operation import Operation, add, channels_first, channels_last


def convolve(
    x: Float[Tensor, "examples channels height width"],
    weight: Float[Tensor, "filters channels size size"],
    stride: int = 1,
) -> Float[Tensor, "examples filters newheight newwidth"]:
    """Convolve images with square filters of odd size; zero padding keeps the size if the stride is 1.

    Args:
        x: ``[examples, channels, height, width]``.
        weight: ``[filters, channels, size, size]``.
        stride: of the filters, in both directions.

    Returns:
        ``[examples, filters, ⌈height/stride⌉, ⌈width/stride⌉]``.

    Examples:
        >>> convolve(torch.rand(2, 3, 28, 28), torch.rand(8, 3, 3, 3), stride=2).shape
        torch.Size([2, 8, 14, 14])
    """
    return _Convolve.apply(x, channels_last(weight), stride)


# Convolution is linear in the images and in the weights, and so are its two gradients. The derivatives of each of the
# three functions are the other two, so no further functions are needed. From here on weights are
# [filters, size, size, channels], which is their order in memory.


class _Convolve(Operation):
    """y = W ∗ x."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int) -> Tensor:
        if _is_shared(weight):
            y = torch.conv2d(_images(x), _of_all(weight), None, stride, weight.shape[-2] // 2)
            return _as_tasks(y, x)
        return products.convolution(x, weight, stride)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, ctx.stride = inputs
        Operation.keep(ctx, x, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        if g is None:
            return None, None, None
        x, weight = ctx.saved_tensors
        of_x = _InputGradient.apply(g, weight, *x.shape[-2:], ctx.stride) if ctx.needs_input_grad[0] else None
        return of_x, _WeightGradient.apply(g, x, weight.shape[-2], ctx.stride), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dw: Tensor | None, _: Any) -> Tensor | None:
        x, weight = ctx.saved_tensors
        of_x = None if dx is None else _Convolve.apply(dx, weight, ctx.stride)
        return add(of_x, None if dw is None else _Convolve.apply(x, dw, ctx.stride))


class _InputGradient(Operation):
    """The gradient of ⟨g, W ∗ x⟩ with respect to x, for a given height and width."""

    @staticmethod
    def forward(g: Tensor, weight: Tensor, height: int, width: int, stride: int) -> Tensor:
        if _is_shared(weight):
            flat = products.input_gradient_of_one(g.flatten(0, -4), _of_all(weight), height, width, stride)
            return _as_tasks(flat, g)
        return products.input_gradient(g, weight, height, width, stride)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        g, weight, *ctx.size, ctx.stride = inputs
        Operation.keep(ctx, g, weight)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, ...]:
        if v is None:
            return None, None, None, None, None
        g, weight = ctx.saved_tensors
        of_weight = _WeightGradient.apply(g, v, weight.shape[-2], ctx.stride)
        return _Convolve.apply(v, weight, ctx.stride), of_weight, None, None, None

    @staticmethod
    def jvp(ctx: Any, dg: Tensor | None, dw: Tensor | None, *_: Any) -> Tensor | None:
        g, weight = ctx.saved_tensors
        options = *ctx.size, ctx.stride
        of_g = None if dg is None else _InputGradient.apply(dg, weight, *options)
        return add(of_g, None if dw is None else _InputGradient.apply(g, dw, *options))


class _WeightGradient(Operation):
    """The gradient of ⟨g, W ∗ x⟩ with respect to W, for a given filter size."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, size: int, stride: int) -> Tensor:
        if g.ndim > 4 or x.shape[-3] == 1:
            return products.weight_gradient(g, x, size, stride)
        return products.weight_gradient_of_one(g, x, size, stride)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        g, x, ctx.size, ctx.stride = inputs
        Operation.keep(ctx, g, x)

    @staticmethod
    def backward(ctx: Any, u: Tensor | None) -> tuple[Tensor | None, ...]:
        if u is None:
            return None, None, None, None
        g, x = ctx.saved_tensors
        of_x = _InputGradient.apply(g, u, *x.shape[-2:], ctx.stride) if ctx.needs_input_grad[1] else None
        return _Convolve.apply(x, u, ctx.stride), of_x, None, None

    @staticmethod
    def jvp(ctx: Any, dg: Tensor | None, dx: Tensor | None, *_: Any) -> Tensor | None:
        g, x = ctx.saved_tensors
        options = ctx.size, ctx.stride
        of_g = None if dg is None else _WeightGradient.apply(dg, x, *options)
        return add(of_g, None if dx is None else _WeightGradient.apply(g, dx, *options))


# If all tasks share the weights: one convolution of all their images.


def _is_shared(weight: Tensor) -> bool:
    return weight.shape[:-4].numel() == 1


def _of_all(weight: Tensor) -> Tensor:
    return channels_first(weight.reshape(weight.shape[-4:]))


def _images(x: Tensor) -> Tensor:
    """The images of all tasks. With one channel, the strides are changed to channels-last, which select the kernel."""
    x = x.flatten(0, -4)
    return channels_first(x.squeeze(1).unsqueeze(-1)) if x.shape[1] == 1 else x


def _as_tasks(flat: Tensor, x: Tensor) -> Tensor:
    return flat if x.ndim == 4 else flat.unflatten(0, x.shape[:-3])

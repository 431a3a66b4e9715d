"""Max-pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fewstep.models.second_order.operation import Operation, channels_first, channels_last

aten = torch.ops.aten


def max_pool(x: Tensor) -> Tensor:
    """The largest of every 2×2 positions, ``[examples, channels, height, width]`` to half the height and width.

    >>> max_pool(torch.arange(16.0).view(1, 1, 4, 4))
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    """
    return _MaxPool.apply(x)[0]


# Pooling takes the values at some places, and both its derivatives take or place values there. Places are those in an
# image laid out with its channels last, [..., examples, height/2 · width/2 · channels].


def largest(x: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of every 2×2 positions, and their places."""
    images = x.flatten(0, -4).contiguous(memory_format=torch.channels_last)
    values, positions = aten.max_pool2d_with_indices(images, [2, 2], [2, 2])
    channels = torch.arange(x.shape[-3], device=x.device)
    places = channels_last(positions).mul_(x.shape[-3]).add_(channels).flatten(1)
    return values.unflatten(0, x.shape[:-3]), places.unflatten(0, x.shape[:-3])


def take_at(places: Tensor, x: Tensor) -> Tensor:
    """The values of ``x`` at places."""
    rows = channels_last(x)
    height, width, channels = rows.shape[-3:]
    tasks = torch.broadcast_shapes(x.shape[:-3], places.shape[:-1])
    rows, places = rows.flatten(-3).expand(*tasks, -1), places.expand(*tasks, -1)
    return channels_first(rows.gather(-1, places).unflatten(-1, (height // 2, width // 2, channels)))


def add_at(places: Tensor, values: Tensor, image: Tensor) -> Tensor:
    """``image + values`` at places; the image, of all tasks, may be written to."""
    rows = channels_last(image)
    tasks = rows.shape[:-3]
    values, places = channels_last(values).flatten(-3).expand(*tasks, -1), places.expand(*tasks, -1)
    return channels_first(rows.flatten(-3).scatter_add_(-1, places, values).unflatten(-1, rows.shape[-3:]))


class _MaxPool(Operation):
    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return largest(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.size = inputs[0].shape[-2:]
        Operation.keep(ctx, output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: Any) -> Tensor | None:
        return None if g is None else _PutAt.apply(*ctx.saved_tensors, g, *ctx.size)

    @staticmethod
    def jvp(ctx: Any, dx: Tensor) -> tuple[Tensor, None]:
        return _TakeAt.apply(*ctx.saved_tensors, dx), None


class _PutAt(Operation):
    """Values at their places among zeros, in images of some height and width."""

    @staticmethod
    def forward(places: Tensor, values: Tensor, height: int, width: int) -> Tensor:
        tasks = torch.broadcast_shapes(values.shape[:-3], places.shape[:-1])
        return add_at(places, values, channels_first(values.new_zeros(*tasks, height, width, values.shape[-3])))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.size = inputs[2:]
        Operation.keep(ctx, inputs[0])

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, None if v is None else _TakeAt.apply(*ctx.saved_tensors, v), None, None

    @staticmethod
    def jvp(ctx: Any, _: Any, values: Tensor, *sizes: Any) -> Tensor:
        return _PutAt.apply(*ctx.saved_tensors, values, *ctx.size)


class _TakeAt(Operation):
    """The values of ``x`` at places."""

    @staticmethod
    def forward(places: Tensor, x: Tensor) -> Tensor:
        return take_at(places, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.size = inputs[1].shape[-2:]
        Operation.keep(ctx, inputs[0])

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, None if g is None else _PutAt.apply(*ctx.saved_tensors, g, *ctx.size)

    @staticmethod
    def jvp(ctx: Any, _: Any, dx: Tensor) -> Tensor:
        return _TakeAt.apply(*ctx.saved_tensors, dx)

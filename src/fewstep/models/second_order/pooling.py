"""Max-pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fewstep.models.second_order.operation import Operation, into_examples, layout, out_of_examples

aten = torch.ops.aten


def max_pool(x: Tensor) -> Tensor:
    """The largest of every 2×2 positions, ``[examples, channels, height, width]`` to half the height and width.

    >>> max_pool(torch.arange(16.0).view(1, 1, 4, 4))
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    """
    return _MaxPool.apply(x)[0]


# Pooling takes the values at some places, and both its derivatives take or place values there.


class _MaxPool(Operation):
    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return aten.max_pool2d_with_indices(x, [2, 2], [2, 2])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.size = inputs[0].shape[-2:]
        Operation.keep(ctx, output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: Any) -> Tensor | None:
        return None if g is None else _PutAt.apply(g, *ctx.saved_tensors, ctx.size)

    @staticmethod
    def jvp(ctx: Any, dx: Tensor) -> tuple[Tensor, None]:
        return _TakeAt.apply(dx, *ctx.saved_tensors), None

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], x: Tensor) -> tuple[Any, tuple[int, int]]:
        outputs = _MaxPool.apply(into_examples(x, dims[0], info.batch_size))
        return tuple(out_of_examples(tensor, info.batch_size) for tensor in outputs), (1, 1)


class _PutAt(Operation):
    """Values at their places among zeros, in images of the given height and width and the layout of the places."""

    @staticmethod
    def forward(values: Tensor, places: Tensor, size: torch.Size) -> Tensor:
        form = layout(places)
        # Only the shape and the layout of the image are looked at.
        image = values.new_empty(1).expand(*places.shape[:2], *size)
        if form is torch.channels_last:
            image = torch.empty(image.shape, dtype=values.dtype, device=values.device, memory_format=form)
        values = values.contiguous(memory_format=form)
        return aten.max_pool2d_with_indices_backward(values, image, [2, 2], [2, 2], [0, 0], [1, 1], False, places)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, torch.Size], output: Tensor) -> None:
        ctx.size = inputs[2]
        Operation.keep(ctx, inputs[1])

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, None, None]:
        return None if v is None else _TakeAt.apply(v, *ctx.saved_tensors), None, None

    @staticmethod
    def jvp(ctx: Any, values: Tensor, *_: Any) -> Tensor:
        return _PutAt.apply(values, *ctx.saved_tensors, ctx.size)

    @staticmethod
    def vmap(
        info: Any, dims: tuple[int | None, ...], values: Tensor, places: Tensor, size: torch.Size
    ) -> tuple[Tensor, int]:
        tasks = info.batch_size
        values, places = into_examples(values, dims[0], tasks), into_examples(places, dims[1], tasks)
        return out_of_examples(_PutAt.apply(values, places, size), tasks), 1


class _TakeAt(Operation):
    """The values of ``x`` at the given places."""

    @staticmethod
    def forward(x: Tensor, places: Tensor) -> Tensor:
        if layout(places) is not torch.channels_last:
            return x.flatten(-2).gather(-1, places.flatten(-2)).view_as(places)
        rows, picked = (t.permute(0, 2, 3, 1).flatten(1, 2) for t in (x, places))
        examples, channels, height, width = places.shape
        return rows.gather(1, picked).view(examples, height, width, channels).permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.size = inputs[0].shape[-2:]
        Operation.keep(ctx, inputs[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, None]:
        return None if g is None else _PutAt.apply(g, *ctx.saved_tensors, ctx.size), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, _: Any) -> Tensor:
        return _TakeAt.apply(dx, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
        folded = [into_examples(tensor, dim, info.batch_size) for tensor, dim in zip(tensors, dims, strict=True)]
        return out_of_examples(_TakeAt.apply(*folded), info.batch_size), 1

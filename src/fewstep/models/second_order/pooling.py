"""Max-pooling with closed-form first and second derivatives."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewstep.models.second_order.operation import Operation, channels_first, channels_last, fused

aten = torch.ops.aten


def max_pool(
    x: Float[Tensor, "examples channels height width"],
) -> Float[Tensor, "examples channels height//2 width//2"]:
    """Apply 2×2 max-pooling: ``[examples, channels, height, width]`` to half the height and width, rounded down.

    Examples:
        >>> max_pool(torch.arange(16.0).view(1, 1, 4, 4))
        tensor([[[[ 5.,  7.],
                  [13., 15.]]]])
    """
    return _MaxPool.apply(x)[0]


# Pooling gathers the values at some places, and its derivatives gather or scatter values there. Places are indices into
# a channels-last image, [..., examples, height/2 · width/2 · channels]. If a compiler fuses elementwise operations,
# they are instead the positions 0 to 3 within each 2×2 window, [..., examples, height/2, width/2, channels] in int8;
# gather and scatter are then elementwise.


def largest(x: Tensor) -> tuple[Tensor, Tensor]:
    """The largest value of every 2×2 window, and its place."""
    if fused(x):
        return _largest_of_four(x)
    images = x.flatten(0, -4).contiguous(memory_format=torch.channels_last)
    values, positions = aten.max_pool2d_with_indices(images, [2, 2], [2, 2])
    channels = torch.arange(x.shape[-3], device=x.device)
    places = channels_last(positions).mul_(x.shape[-3]).add_(channels).flatten(1)
    return values.unflatten(0, x.shape[:-3]), places.unflatten(0, x.shape[:-3])


def take_at(places: Tensor, x: Tensor) -> Tensor:
    """The values of ``x`` at the given places."""
    rows = channels_last(x)
    if places.dtype == torch.int8:
        return channels_first(_one_of_four(places, _four(rows)))
    height, width, channels = rows.shape[-3:]
    tasks = torch.broadcast_shapes(x.shape[:-3], places.shape[:-1])
    rows, places = rows.flatten(-3).expand(*tasks, -1), places.expand(*tasks, -1)
    return channels_first(rows.gather(-1, places).unflatten(-1, (height // 2, width // 2, channels)))


def add_at(places: Tensor, values: Tensor, image: Tensor) -> Tensor:
    """Add ``values`` to the image at the given places; may write to the image, which must have all task axes."""
    rows = channels_last(image)
    if places.dtype == torch.int8:
        return channels_first(rows + _spread(places, channels_last(values), *rows.shape[-3:-1]))
    tasks = rows.shape[:-3]
    values, places = channels_last(values).flatten(-3).expand(*tasks, -1), places.expand(*tasks, -1)
    return channels_first(rows.flatten(-3).scatter_add_(-1, places, values).unflatten(-1, rows.shape[-3:]))


def _largest_of_four(x: Tensor) -> tuple[Tensor, Tensor]:
    values, *others = _four(channels_last(x))
    positions = torch.zeros_like(values, dtype=torch.int8)
    for position, other in enumerate(others, 1):
        larger = (other > values) | other.isnan()
        values, positions = torch.where(larger, other, values), torch.where(larger, position, positions)
    return channels_first(values), positions


def _four(rows: Tensor) -> list[Tensor]:
    """The four positions of all 2×2 windows as four images, ``[..., height/2, width/2, channels]``."""
    height, width = (side // 2 * 2 for side in rows.shape[-3:-1])
    return [rows[..., i:height:2, j:width:2, :] for i, j in product(range(2), repeat=2)]


def _one_of_four(positions: Tensor, images: list[Tensor]) -> Tensor:
    chosen = images[0]
    for position, image in enumerate(images[1:], 1):
        chosen = torch.where(positions == position, image, chosen)
    return chosen


def _spread(positions: Tensor, values: Tensor, height: int, width: int) -> Tensor:
    """Values at their positions, zeros elsewhere, ``[..., height, width, channels]``."""
    positions, values = (_each_four_times(t, height, width) for t in (positions, values))
    own = torch.arange(height, device=values.device)[:, None] % 2 * 2 + torch.arange(width, device=values.device) % 2
    return torch.where(positions == own[..., None], values, torch.zeros((), dtype=values.dtype, device=values.device))


def _each_four_times(rows: Tensor, height: int, width: int) -> Tensor:
    """Each entry repeated for the four positions of its window; the last row and column of an odd size are −1."""
    *lead, half_height, half_width, channels = rows.shape
    repeated = rows[..., :, None, :, None, :].expand(*lead, half_height, 2, half_width, 2, channels)
    repeated = repeated.reshape(*lead, 2 * half_height, 2 * half_width, channels)
    return functional.pad(repeated, (0, 0, 0, width - 2 * half_width, 0, height - 2 * half_height), value=-1)


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
    """Values at their places, zeros elsewhere, in images of a given height and width."""

    @staticmethod
    def forward(places: Tensor, values: Tensor, height: int, width: int) -> Tensor:
        if places.dtype == torch.int8:
            return channels_first(_spread(places, channels_last(values), height, width))
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
    """The values of ``x`` at the given places."""

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

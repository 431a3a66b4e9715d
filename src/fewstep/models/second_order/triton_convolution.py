"""Convolution with separate weights for each task in one launch for all tasks: Triton kernels for GPUs.

Each of the three functions is a matrix product whose larger factor, the patches of the images, is never stored. A
program computes one tile of one task's product and reads the entries of the images that it needs. Images, weights and
results are float32 with their channels last in memory. Offsets within one task are 32-bit integers.

``triton_tiles.py`` chooses the tiles, and ``triton_kernels.py`` holds the kernels. Triton is imported at the first
call.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fewstep.models.second_order.operation import channels_first, channels_last
from fewstep.models.second_order.triton_kernels import launch
from fewstep.models.second_order.triton_tiles import PRECISIONS, Tile, parts, tile_of_images, tile_of_weights

ROWS_TO_TURN = 256
"""With at least this many places in the images of a task, the filters are stored transposed for products in full
precision: reading [depth, columns] is faster if columns are adjacent in memory."""


def takes(first: Tensor, second: Tensor) -> bool:
    """Whether the kernels support these tensors: float32 on a CUDA device, with Triton installed."""
    return first.is_cuda and first.dtype == second.dtype == torch.float32 and _installed()


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def present_precision() -> str:
    """The precision that PyTorch's setting for convolutions asks for: TF32 (its default) or full single precision."""
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return "tf32" if convolutions.fp32_precision == "tf32" else "tf32x3"


def convolution(
    x: Tensor, weight: Tensor, stride: int, precision: str = "ieee", tile: Sequence[int] | None = None
) -> Tensor:
    """W ∗ x, ``[tasks, examples, filters, ⌈height/stride⌉, ⌈width/stride⌉]``.

    Args:
        x: ``[tasks, examples, channels, height, width]``. A task axis of size 1, here and below, is shared by all
            tasks.
        weight: ``[tasks, filters, size, size, channels]`` with an odd size.
        stride: of the filters, in both directions.
        precision: one of ``PRECISIONS``.
        tile: a ``Tile``; ``None`` chooses one by the sizes.
    """
    return channels_first(_convolution(_readable(channels_last(x)), weight, stride, precision, tile))


def weight_gradient(
    g: Tensor, x: Tensor, size: int, stride: int, precision: str = "ieee", tile: Sequence[int] | None = None
) -> Tensor:
    """The gradient of ⟨g, W ∗ x⟩ with respect to W, ``[tasks, filters, size, size, channels]``.

    Args:
        g: ``[tasks, examples, filters, ⌈height/stride⌉, ⌈width/stride⌉]``.
        x: ``[tasks, examples, channels, height, width]``.
        size: height and width of the filters.
        stride: of the filters, in both directions.
        precision: one of ``PRECISIONS``.
        tile: a ``Tile``; ``None`` chooses one by the sizes.
    """
    g, x = (_readable(channels_last(images)) for images in (g, x))
    return _weight_gradient(g, x, size, stride, precision, tile).sum(0)


def input_gradient(
    g: Tensor,
    weight: Tensor,
    height: int,
    width: int,
    stride: int,
    precision: str = "ieee",
    tile: Sequence[int] | None = None,
) -> Tensor:
    """The gradient of ⟨g, W ∗ x⟩ with respect to x, ``[tasks, examples, channels, height, width]``.

    Args:
        g: ``[tasks, examples, filters, ⌈height/stride⌉, ⌈width/stride⌉]``.
        weight: ``[tasks, filters, size, size, channels]``.
        height: of the images.
        width: of the images.
        stride: of the filters, in both directions.
        precision: one of ``PRECISIONS``.
        tile: a ``Tile``; ``None`` chooses one by the sizes.
    """
    g, weight = _readable(channels_last(g)), _readable(weight)
    return channels_first(_input_gradient(g, weight, height, width, stride, precision, tile))


# Each function as one custom operator of PyTorch; images are [tasks, examples, height, width, channels].


@torch.library.custom_op(
    "fewstep::task_convolution",
    mutates_args=(),
    tags=(torch.Tag.needs_fixed_stride_order,),
    schema="(Tensor x, Tensor weight, SymInt stride, str precision, SymInt[]? tile=None) -> Tensor",
)
def _convolution(x: Tensor, weight: Tensor, stride: int, precision: str, tile: Sequence[int] | None = None) -> Tensor:
    y = _convolution_shape(x, weight, stride, precision)
    tasks, rows = len(y), y.shape[1:4].numel()
    filters, size, _, channels = weight.shape[1:]
    depth = size**2 * channels
    chosen = Tile(*tile) if tile else tile_of_images(tasks, rows, filters, channels, depth, precision)
    grid = parts(rows, chosen.rows) * parts(filters, chosen.columns), tasks
    if precision == "ieee" and rows >= ROWS_TO_TURN and channels >= 16:
        weight = _readable(weight.movedim(1, -1)).movedim(-1, 1)
    else:
        weight = _readable(weight)
    x = _readable(x)
    operands = x, weight, y, rows, *_strides(x)[:4], *_strides(weight)
    launch("_convolution_kernel", grid, operands, x, filters, size, stride, precision, chosen)
    return y


@torch.library.custom_op(
    "fewstep::task_weight_gradient",
    mutates_args=(),
    tags=(torch.Tag.needs_fixed_stride_order,),
    schema="(Tensor g, Tensor x, SymInt size, SymInt stride, str precision, SymInt[]? tile=None) -> Tensor",
)
def _weight_gradient(
    g: Tensor, x: Tensor, size: int, stride: int, precision: str, tile: Sequence[int] | None = None
) -> Tensor:
    """Partial sums of the gradient, ``[splits, tasks, filters, size, size, channels]``."""
    sums = _weight_gradient_shape(g, x, size, stride, precision, tile)
    splits, tasks, filters, *_, channels = sums.shape
    chosen, of_split = _splits(sums, g, precision, tile)
    rows, columns = g.shape[1:4].numel(), size**2 * channels
    grid = parts(filters, chosen.rows) * parts(columns, chosen.columns), splits, tasks
    g, x = _readable(g), _readable(x)
    operands = g, x, sums, rows, of_split, *_strides(g)[:4], *_strides(x)[:4]
    launch("_weight_gradient_kernel", grid, operands, x, filters, size, stride, precision, chosen)
    return sums


@torch.library.custom_op(
    "fewstep::task_input_gradient",
    mutates_args=(),
    tags=(torch.Tag.needs_fixed_stride_order,),
    schema="(Tensor g, Tensor weight, SymInt height, SymInt width, SymInt stride, str precision, SymInt[]? tile=None)"
    " -> Tensor",
)
def _input_gradient(
    g: Tensor,
    weight: Tensor,
    height: int,
    width: int,
    stride: int,
    precision: str,
    tile: Sequence[int] | None = None,
) -> Tensor:
    x = _input_gradient_shape(g, weight, height, width, stride, precision)
    tasks, examples = x.shape[:2]
    filters, size, _, channels = weight.shape[1:]
    rows = examples * parts(height, stride) * parts(width, stride)  # places with the same remainders modulo the stride
    depth = parts(size, stride) ** 2 * filters
    problems = tasks * min(stride, 2)  # an estimate: most kinds of places take less time than the longest one
    chosen = Tile(*tile) if tile else tile_of_images(problems, rows, channels, filters, depth, precision, True)
    grid = parts(rows, chosen.rows) * parts(channels, chosen.columns), tasks, stride**2
    g, weight = _readable(g), _readable(weight)
    operands = g, weight, x, examples, *_strides(g)[:4], *_strides(weight)[:4]
    launch("_input_gradient_kernel", grid, operands, x, filters, size, stride, precision, chosen)
    return x


@_convolution.register_fake
def _convolution_shape(
    x: Tensor, weight: Tensor, stride: int, precision: str, tile: Sequence[int] | None = None
) -> Tensor:
    sides = (parts(side, stride) for side in x.shape[2:4])
    return x.new_empty(_tasks(x, weight, precision), x.shape[1], *sides, weight.shape[1])


@_weight_gradient.register_fake
def _weight_gradient_shape(
    g: Tensor, x: Tensor, size: int, stride: int, precision: str, tile: Sequence[int] | None = None
) -> Tensor:
    one = g.new_empty(1, _tasks(g, x, precision), g.shape[-1], size, size, x.shape[-1])
    splits = max(1, parts(g.shape[1:4].numel(), _splits(one, g, precision, tile)[1]))
    return one if splits == 1 else one.new_empty(splits, *one.shape[1:])


def _splits(sums: Tensor, g: Tensor, precision: str, tile: Sequence[int] | None) -> tuple[Tile, int]:
    """The tile, and how many rows of the sum one program adds."""
    tasks, filters, size, _, channels = sums.shape[1:]
    rows = g.shape[1:4].numel()
    chosen = Tile(*tile) if tile else tile_of_weights(tasks, filters, size**2 * channels, rows, precision)
    return chosen, max(1, parts(parts(rows, chosen.splits), chosen.depth)) * chosen.depth


@_input_gradient.register_fake
def _input_gradient_shape(
    g: Tensor,
    weight: Tensor,
    height: int,
    width: int,
    stride: int,
    precision: str,
    tile: Sequence[int] | None = None,
) -> Tensor:
    return g.new_empty(_tasks(g, weight, precision), g.shape[1], height, width, weight.shape[-1])


def _tasks(first: Tensor, second: Tensor, precision: str) -> int:
    """The number of tasks; raises if the kernels do not support the tensors."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}.")
    if not first.dtype == second.dtype == torch.float32:
        raise TypeError(f"task convolution needs float32 tensors; got {first.dtype} and {second.dtype}.")
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        raise ValueError(f"task convolution needs the same number of tasks; got {len(first)} and {len(second)}.")
    return len(second) if len(first) == 1 else len(first)


def _readable(x: Tensor) -> Tensor:
    """The tensor with a contiguous last axis."""
    if x.shape[-1] == 1 or x.stride(-1) == 1:
        return x
    return (x[:1] if x.stride(0) == 0 else x).contiguous()


def _strides(x: Tensor) -> list[int]:
    """The strides, with 0 for axes of size 1, such as the task axis of a shared tensor."""
    return [0 if side == 1 else stride for side, stride in zip(x.shape, x.stride(), strict=True)]

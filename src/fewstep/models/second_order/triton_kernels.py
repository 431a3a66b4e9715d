"""The Triton kernels of ``triton_convolution.py``, compiled when they are first launched.

Arguments in capitals are compile-time constants. The offset of a place in memory is given by the strides of the axes of
tasks, examples, lines and places; the stride of channels is 1. Filters are flattened to [lines, places, channels].
"""

# ruff: noqa: N803

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from fewstep.models.second_order.triton_tiles import Tile

if TYPE_CHECKING:
    import triton.language as tl  # type: ignore

Function = TypeVar("Function", bound=Callable[..., Any])
_functions: dict[str, Callable[..., Any]] = {}


def _for_triton(function: Function) -> Function:
    """Register a function for compilation by Triton at its first use."""
    _functions[function.__name__] = function
    return function


@cache
def compiled_kernels() -> dict[str, Any]:
    """The kernels by name; Triton compiles each for the sizes that it is launched with."""
    import triton

    functions = {name: triton.jit(function) for name, function in _functions.items()}
    globals().update(tl=triton.language, **functions)  # the names that the kernels use
    return functions


@_for_triton
def _entries(
    start: tl.tensor, lines: tl.tensor, places: tl.tensor, CHANNELS: tl.constexpr, COUNT: tl.constexpr
) -> tl.tensor:
    """Line, place and channel of COUNT entries of a filter, and whether each entry exists, ``[1, COUNT]`` each.

    Lines and places are scalars if they are the same for all entries.
    """
    if CHANNELS % COUNT == 0:
        at = start // CHANNELS
        channel = tl.multiple_of(start % CHANNELS, COUNT) + tl.arange(0, COUNT)[None, :]
        valid = tl.full((1, COUNT), True, tl.int1)
    else:
        entry = start + tl.arange(0, COUNT)[None, :]
        at = entry // CHANNELS
        channel = entry % CHANNELS
        valid = at < lines * places
    return at // places, at % places, channel, valid


@_for_triton
def _inside(line: tl.tensor, place: tl.tensor, HEIGHT: tl.constexpr, WIDTH: tl.constexpr) -> tl.tensor:
    return (line >= 0) & (line < HEIGHT) & (place >= 0) & (place < WIDTH)


@_for_triton
def _add_product(total: tl.tensor, a: tl.tensor, b: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    if PRECISION == "bf16":
        total = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), total)
    else:
        total = tl.dot(a, b, total, input_precision=PRECISION)
    return total


@_for_triton
def _convolution_kernel(
    x: tl.tensor,
    weight: tl.tensor,
    y: tl.tensor,
    rows: tl.tensor,
    x_task: tl.tensor,
    x_example: tl.tensor,
    x_line: tl.tensor,
    x_place: tl.tensor,
    weight_task: tl.tensor,
    weight_filter: tl.tensor,
    weight_line: tl.tensor,
    weight_place: tl.tensor,
    weight_channel: tl.tensor,
    FILTERS: tl.constexpr,
    CHANNELS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Grid: tiles, tasks. y ``[tasks, rows, FILTERS]``."""
    ACROSS: tl.constexpr = (WIDTH + STRIDE - 1) // STRIDE
    DOWN: tl.constexpr = (HEIGHT + STRIDE - 1) // STRIDE
    tiles: tl.constexpr = (FILTERS + COLUMNS - 1) // COLUMNS
    task = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) // tiles * ROWS + tl.arange(0, ROWS)[:, None]
    filter = tl.program_id(0) % tiles * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    line = tl.where(row < rows, row // ACROSS % DOWN * STRIDE - SIZE // 2, -SIZE)  # rows that do not exist are outside
    place = row % ACROSS * STRIDE - SIZE // 2
    first = row // (DOWN * ACROSS) * x_example + line * x_line + place * x_place
    x += task * x_task
    weight += task * weight_task
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, SIZE * SIZE * CHANNELS, DEPTH):
        i, j, channel, valid = _entries(start, SIZE, SIZE, CHANNELS, DEPTH)
        at = x + (first + (i * x_line + j * x_place + channel))
        patches = tl.load(at, mask=_inside(line + i, place + j, HEIGHT, WIDTH) & valid, other=0.0)
        at = weight + (tl.trans(i * weight_line + j * weight_place + channel * weight_channel) + filter * weight_filter)
        filters = tl.load(at, mask=tl.trans(valid) & (filter < FILTERS), other=0.0)
        total = _add_product(total, patches, filters, PRECISION)
    y += task * rows * FILTERS
    tl.store(y + (row * FILTERS + filter), total, mask=(row < rows) & (filter < FILTERS))


@_for_triton
def _weight_gradient_kernel(
    g: tl.tensor,
    x: tl.tensor,
    sums: tl.tensor,
    rows: tl.tensor,
    rows_of_split: tl.tensor,
    g_task: tl.tensor,
    g_example: tl.tensor,
    g_line: tl.tensor,
    g_place: tl.tensor,
    x_task: tl.tensor,
    x_example: tl.tensor,
    x_line: tl.tensor,
    x_place: tl.tensor,
    FILTERS: tl.constexpr,
    CHANNELS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Grid: tiles, splits, tasks. sums ``[splits, tasks, FILTERS, SIZE · SIZE · CHANNELS]``."""
    ACROSS: tl.constexpr = (WIDTH + STRIDE - 1) // STRIDE
    DOWN: tl.constexpr = (HEIGHT + STRIDE - 1) // STRIDE
    ENTRIES: tl.constexpr = SIZE * SIZE * CHANNELS
    tiles: tl.constexpr = (ENTRIES + COLUMNS - 1) // COLUMNS
    split, task = tl.program_id(1), tl.program_id(2).to(tl.int64)
    filter = tl.program_id(0) // tiles * ROWS + tl.arange(0, ROWS)[:, None]
    start = tl.program_id(0) % tiles * COLUMNS
    i, j, channel, valid = _entries(start, SIZE, SIZE, CHANNELS, COLUMNS)
    g += task * g_task
    x += task * x_task
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    until = tl.minimum(rows, (split + 1) * rows_of_split)
    for begin in range(split * rows_of_split, until, DEPTH):
        row = begin + tl.arange(0, DEPTH)[:, None]
        example, down, across = row // (DOWN * ACROSS), row // ACROSS % DOWN, row % ACROSS
        at = g + (tl.trans(example * g_example + down * g_line + across * g_place) + filter)
        values = tl.load(at, mask=(tl.trans(row) < until) & (filter < FILTERS), other=0.0)
        line = tl.where(row < until, down * STRIDE - SIZE // 2, -SIZE)
        place = across * STRIDE - SIZE // 2
        first = example * x_example + line * x_line + place * x_place
        at = x + (first + (i * x_line + j * x_place + channel))
        patches = tl.load(at, mask=_inside(line + i, place + j, HEIGHT, WIDTH) & valid, other=0.0)
        total = _add_product(total, values, patches, PRECISION)
    sums += (split * tl.num_programs(2) + task) * (FILTERS * ENTRIES)
    entry = start + tl.arange(0, COLUMNS)[None, :]
    tl.store(sums + (filter * ENTRIES + entry), total, mask=(filter < FILTERS) & valid)


@_for_triton
def _input_gradient_kernel(
    g: tl.tensor,
    weight: tl.tensor,
    x: tl.tensor,
    examples: tl.tensor,
    g_task: tl.tensor,
    g_example: tl.tensor,
    g_line: tl.tensor,
    g_place: tl.tensor,
    weight_task: tl.tensor,
    weight_filter: tl.tensor,
    weight_line: tl.tensor,
    weight_place: tl.tensor,
    FILTERS: tl.constexpr,
    CHANNELS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Grid: tiles, tasks, STRIDE · STRIDE. x ``[tasks, examples, HEIGHT, WIDTH, CHANNELS]``.

    Places with the same remainders modulo the stride depend on the same entries of the filters: every STRIDE-th entry
    from a first one. Each pair of remainders (``kind``) is a separate product.
    """
    ACROSS: tl.constexpr = (WIDTH + STRIDE - 1) // STRIDE
    DOWN: tl.constexpr = (HEIGHT + STRIDE - 1) // STRIDE
    MARGIN: tl.constexpr = SIZE // 2
    tiles: tl.constexpr = (CHANNELS + COLUMNS - 1) // COLUMNS
    task = tl.program_id(1).to(tl.int64)
    kind = 0 if STRIDE == 1 else STRIDE * STRIDE - 1 - tl.program_id(2)  # the longest products first
    top, left = kind // STRIDE, kind % STRIDE
    high, wide = (HEIGHT - top + STRIDE - 1) // STRIDE, (WIDTH - left + STRIDE - 1) // STRIDE
    first_i, first_j = (top + MARGIN) % STRIDE, (left + MARGIN) % STRIDE
    lines, places = (SIZE - first_i + STRIDE - 1) // STRIDE, (SIZE - first_j + STRIDE - 1) // STRIDE
    row = tl.program_id(0) // tiles * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(0) % tiles * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    valid = row < examples * high * wide
    high, wide = tl.maximum(high, 1), tl.maximum(wide, 1)  # avoids division by zero if there is no such place
    example, down, across = row // (high * wide), row // wide % high, row % wide
    line = tl.where(valid, down + (top + MARGIN) // STRIDE, -1)  # rows that do not exist are outside
    place = across + (left + MARGIN) // STRIDE
    first = example * g_example + line * g_line + place * g_place
    g += task * g_task
    weight += task * weight_task
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, lines * places * FILTERS, DEPTH):
        i, j, filter, there = _entries(start, lines, places, FILTERS, DEPTH)
        at = g + (first + (filter - (i * g_line + j * g_place)))
        values = tl.load(at, mask=_inside(line - i, place - j, DOWN, ACROSS) & there, other=0.0)
        i, j = first_i + STRIDE * i, first_j + STRIDE * j
        at = weight + (tl.trans(filter * weight_filter + (i * weight_line + j * weight_place)) + column)
        filters = tl.load(at, mask=tl.trans(there) & (column < CHANNELS), other=0.0)
        total = _add_product(total, values, filters, PRECISION)
    x += task * examples * (HEIGHT * WIDTH * CHANNELS)
    at = x + (((example * HEIGHT + down * STRIDE + top) * WIDTH + across * STRIDE + left) * CHANNELS + column)
    tl.store(at, total, mask=valid & (column < CHANNELS))


def launch(
    name: str,
    grid: tuple[int, ...],
    operands: tuple[Any, ...],
    images: Tensor,
    filters: int,
    size: int,
    stride: int,
    precision: str,
    tile: Tile,
) -> None:
    """Launch a kernel; ``images`` ``[tasks, examples, height, width, channels]`` are those that the filters cover."""
    if 0 in grid:
        return
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    *_, height, width, channels = images.shape
    sizes = filters, channels, height, width, size, stride, tile.rows, tile.columns, tile.depth, precision
    with torch.cuda.device_of(images):
        compiled_kernels()[name][grid](*operands, *sizes, **options)

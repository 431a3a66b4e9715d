"""Convolution by weights of each task's own, in one launch for all tasks: kernels in Triton, for GPUs.

Each of the three is a product of matrices whose larger factor, the patches of the images, is never written out. A
program works out one tile of one task's product and reads what it needs of the images where it lies. Images and weights
are float32 and lie with their channels last in memory; so do the results. One task's numbers are counted in 32 bits.

Triton is imported at the first call.
"""

# ruff: noqa: N803

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from fewstep.models.second_order.operation import channels_first, channels_last

if TYPE_CHECKING:
    import triton.language as tl  # type: ignore

PRECISIONS = "ieee", "tf32", "tf32x3", "bf16"
"""Of the factors of a product; sums are float32. "tf32x3" multiplies high and low parts, nearly as exact as float32."""

PROGRAMS = 256
"""About two for each multiprocessor of an H100: so many at a time hide what each waits for."""

ROWS_TO_TURN = 256
"""From so many places on in a task's images, its filters are written out the other way round for products on the
ordinary units: these read [depth, columns] with less waiting if columns are next to each other."""


def takes(first: Tensor, second: Tensor) -> bool:
    """Whether these kernels know such tensors: float32 on a CUDA device, where Triton is installed."""
    return first.is_cuda and first.dtype == second.dtype == torch.float32 and _installed()


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def present_precision() -> str:
    """What PyTorch's own setting for convolutions asks for: TF32, as it is by default, or full single precision."""
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return "tf32" if convolutions.fp32_precision == "tf32" else "tf32x3"


def convolution(
    x: Tensor, weight: Tensor, stride: int, precision: str = "ieee", tile: Sequence[int] | None = None
) -> Tensor:
    """W ∗ x, ``[tasks, examples, filters, ⌈height/stride⌉, ⌈width/stride⌉]``.

    Args:
        x: ``[tasks, examples, channels, height, width]``. An axis of one task, here and below, is that of all tasks.
        weight: ``[tasks, filters, size, size, channels]``, of an odd size.
        stride: of the filters, in both directions.
        precision: one of ``PRECISIONS``.
        tile: a ``Tile`` instead of that which the sizes suggest.
    """
    return channels_first(_convolution(_readable(channels_last(x)), weight, stride, precision, tile))


def weight_gradient(
    g: Tensor, x: Tensor, size: int, stride: int, precision: str = "ieee", tile: Sequence[int] | None = None
) -> Tensor:
    """The gradient of ⟨g, W ∗ x⟩ for W, ``[tasks, filters, size, size, channels]``.

    Args:
        g: ``[tasks, examples, filters, ⌈height/stride⌉, ⌈width/stride⌉]``.
        x: ``[tasks, examples, channels, height, width]``.
        size: of the filters.
        stride: likewise.
        precision: likewise.
        tile: likewise.
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
    """The gradient of ⟨g, W ∗ x⟩ for x, ``[tasks, examples, channels, height, width]``.

    Args:
        g: ``[tasks, examples, filters, ⌈height/stride⌉, ⌈width/stride⌉]``.
        weight: ``[tasks, filters, size, size, channels]``.
        height: of the images.
        width: likewise.
        stride: of the filters.
        precision: one of ``PRECISIONS``.
        tile: a ``Tile`` instead of that which the sizes suggest.
    """
    g, weight = _readable(channels_last(g)), _readable(weight)
    return channels_first(_input_gradient(g, weight, height, width, stride, precision, tile))


# How a product is cut into tiles.


class Tile(NamedTuple):
    """The part of a product [rows, depth] · [depth, columns] that a program works out, all powers of two from 16."""

    rows: int
    columns: int
    depth: int
    """How much of the sum is added at a time."""
    warps: int
    stages: int
    """How many such parts are on their way from memory."""
    splits: int = 1
    """Among how many programs a sum is split: of the gradient for weights only."""


def tile_of_images(
    tasks: int, rows: int, columns: int, channels: int, depth: int, precision: str, gradient: bool = False
) -> Tile:
    """That of a convolution, or of the gradient for its images.

    Args:
        tasks: how many.
        rows: places in all images of a task.
        columns: filters, or channels if it is a gradient.
        channels: of what is convolved.
        depth: channels times the places of a filter.
        precision: one of ``PRECISIONS``.
        gradient: whether it is one.
    """
    turned = gradient and precision == "tf32"
    high, wide = min(64 if turned else 128, _power(rows)), min(64, _power(columns))

    def programs() -> int:
        return tasks * _parts(rows, high) * _parts(columns, wide)

    while high > 64 and programs() < PROGRAMS:
        high //= 2
    while high > 32 and programs() < (PROGRAMS if precision == "ieee" else PROGRAMS // 2):
        high //= 2
    while wide > 16 and programs() < PROGRAMS // 2:
        wide //= 2
    return Tile(high, wide, _part_of_depth(channels, depth, precision), _warps(high, wide, precision, turned), 3)


def tile_of_weights(tasks: int, filters: int, columns: int, rows: int, precision: str) -> Tile:
    """That of the gradient for weights, of which rows are filters.

    Args:
        tasks: how many.
        filters: of a task.
        columns: channels times the places of a filter.
        rows: places in all images of a task, over which the sum is.
        precision: one of ``PRECISIONS``.
    """
    high, part = min(64, _power(filters)), min(32, _power(rows))
    wide = min(32 if filters <= 32 else 64, _power(columns))
    splits = splits_of_sum(tasks * _parts(filters, high) * _parts(columns, wide), rows, part)
    return Tile(high, wide, part, _warps(high, wide, precision, precision == "tf32"), 3, splits)


def splits_of_sum(programs: int, rows: int, depth: int) -> int:
    """Among how many programs each of some is split, of which each adds up products of so many rows, depth by depth."""
    return 1 if programs >= PROGRAMS else min(_parts(3 * PROGRAMS, programs), max(1, rows // (4 * depth)))


def _warps(rows: int, columns: int, precision: str, turned: bool) -> int:
    """By how many numbers each thread has to keep.

    Four share an instruction for 64 rows, which takes factors of "tf32" only with the axis of the sum dense in memory:
    others would have to be turned round on their way, four bytes by four.
    """
    if turned or rows * columns < 2048:
        return 2
    return 8 if rows * columns > 4096 and precision in ("ieee", "tf32x3") else 4


def _part_of_depth(channels: int, depth: int, precision: str) -> int:
    """Such that a part is of one place of the filters, if there are channels enough for that."""
    if channels < 16:
        return min(32, _power(depth))
    return 32 if channels % 32 == 0 and precision != "ieee" else 16


def _power(number: int) -> int:
    """The next power of two, 16 or more: tensor cores take no less."""
    return max(16, 1 << (number - 1).bit_length())


def _parts(number: int, size: int) -> int:
    return -(-number // size)


# The kernels. In capitals what a kernel is compiled for. A place's offset in memory is given by the strides of the
# axes of tasks, examples, lines and places; that of channels is 1. Filters are flattened to [lines, places, channels].


Function = TypeVar("Function", bound=Callable[..., Any])
_functions: dict[str, Callable[..., Any]] = {}


def _for_triton(function: Function) -> Function:
    """Has the function compiled once it is needed."""
    _functions[function.__name__] = function
    return function


@cache
def _compiled() -> dict[str, Any]:
    import triton

    functions = {name: triton.jit(function) for name, function in _functions.items()}
    globals().update(tl=triton.language, **functions)  # for the functions that they call
    return functions


@_for_triton
def _entries(
    start: tl.tensor, lines: tl.tensor, places: tl.tensor, CHANNELS: tl.constexpr, COUNT: tl.constexpr
) -> tl.tensor:
    """Line, place and channel of COUNT entries of a filter, and whether there is such an entry, each ``[1, COUNT]``.

    Lines and places are numbers where they are the same for all.
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
    line = tl.where(row < rows, row // ACROSS % DOWN * STRIDE - SIZE // 2, -SIZE)  # no row: always outside
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

    Places that are alike up to the stride are reached by the same entries of the filters, every STRIDE-th from some
    first one on: each kind of places is a problem of its own.
    """
    ACROSS: tl.constexpr = (WIDTH + STRIDE - 1) // STRIDE
    DOWN: tl.constexpr = (HEIGHT + STRIDE - 1) // STRIDE
    MARGIN: tl.constexpr = SIZE // 2
    tiles: tl.constexpr = (CHANNELS + COLUMNS - 1) // COLUMNS
    task = tl.program_id(1).to(tl.int64)
    kind = 0 if STRIDE == 1 else STRIDE * STRIDE - 1 - tl.program_id(2)  # those that take longest first
    top, left = kind // STRIDE, kind % STRIDE
    high, wide = (HEIGHT - top + STRIDE - 1) // STRIDE, (WIDTH - left + STRIDE - 1) // STRIDE
    first_i, first_j = (top + MARGIN) % STRIDE, (left + MARGIN) % STRIDE
    lines, places = (SIZE - first_i + STRIDE - 1) // STRIDE, (SIZE - first_j + STRIDE - 1) // STRIDE
    row = tl.program_id(0) // tiles * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(0) % tiles * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    valid = row < examples * high * wide
    high, wide = tl.maximum(high, 1), tl.maximum(wide, 1)  # a divisor even if there is no such place
    example, down, across = row // (high * wide), row // wide % high, row % wide
    line = tl.where(valid, down + (top + MARGIN) // STRIDE, -1)  # no row: always outside
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


# The operations as PyTorch knows them, each as one: images as they lie, [tasks, examples, height, width, channels].


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
    grid = _parts(rows, chosen.rows) * _parts(filters, chosen.columns), tasks
    if precision == "ieee" and rows >= ROWS_TO_TURN and channels >= 16:
        weight = _readable(weight.movedim(1, -1)).movedim(-1, 1)
    else:
        weight = _readable(weight)
    x = _readable(x)
    operands = x, weight, y, rows, *_strides(x)[:4], *_strides(weight)
    _launch("_convolution_kernel", grid, operands, x, filters, size, stride, precision, chosen)
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
    """In parts that are still to be added up, ``[splits, tasks, filters, size, size, channels]``."""
    sums = _weight_gradient_shape(g, x, size, stride, precision, tile)
    splits, tasks, filters, *_, channels = sums.shape
    chosen, of_split = _splits(sums, g, precision, tile)
    rows, columns = g.shape[1:4].numel(), size**2 * channels
    grid = _parts(filters, chosen.rows) * _parts(columns, chosen.columns), splits, tasks
    g, x = _readable(g), _readable(x)
    operands = g, x, sums, rows, of_split, *_strides(g)[:4], *_strides(x)[:4]
    _launch("_weight_gradient_kernel", grid, operands, x, filters, size, stride, precision, chosen)
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
    rows = examples * _parts(height, stride) * _parts(width, stride)  # of those places that are reached likewise
    depth = _parts(size, stride) ** 2 * filters
    problems = tasks * min(stride, 2)  # as if these were all: most kinds of places take less than the one of most
    chosen = Tile(*tile) if tile else tile_of_images(problems, rows, channels, filters, depth, precision, True)
    grid = _parts(rows, chosen.rows) * _parts(channels, chosen.columns), tasks, stride**2
    g, weight = _readable(g), _readable(weight)
    operands = g, weight, x, examples, *_strides(g)[:4], *_strides(weight)[:4]
    _launch("_input_gradient_kernel", grid, operands, x, filters, size, stride, precision, chosen)
    return x


@_convolution.register_fake
def _convolution_shape(
    x: Tensor, weight: Tensor, stride: int, precision: str, tile: Sequence[int] | None = None
) -> Tensor:
    sides = (_parts(side, stride) for side in x.shape[2:4])
    return x.new_empty(_tasks(x, weight, precision), x.shape[1], *sides, weight.shape[1])


@_weight_gradient.register_fake
def _weight_gradient_shape(
    g: Tensor, x: Tensor, size: int, stride: int, precision: str, tile: Sequence[int] | None = None
) -> Tensor:
    one = g.new_empty(1, _tasks(g, x, precision), g.shape[-1], size, size, x.shape[-1])
    splits = max(1, _parts(g.shape[1:4].numel(), _splits(one, g, precision, tile)[1]))
    return one if splits == 1 else one.new_empty(splits, *one.shape[1:])


def _splits(sums: Tensor, g: Tensor, precision: str, tile: Sequence[int] | None) -> tuple[Tile, int]:
    """The tile, and how many rows of a task's sum a program takes."""
    tasks, filters, size, _, channels = sums.shape[1:]
    rows = g.shape[1:4].numel()
    chosen = Tile(*tile) if tile else tile_of_weights(tasks, filters, size**2 * channels, rows, precision)
    return chosen, max(1, _parts(_parts(rows, chosen.splits), chosen.depth)) * chosen.depth


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
    """How many; refuses what the kernels do not know."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision}")
    if not first.dtype == second.dtype == torch.float32:
        raise TypeError(f"only float32 is convolved here, not {first.dtype} and {second.dtype}")
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        raise ValueError(f"{len(first)} tasks do not go with {len(second)}")
    return len(second) if len(first) == 1 else len(first)


def _readable(x: Tensor) -> Tensor:
    """With its last axis dense in memory."""
    if x.shape[-1] == 1 or x.stride(-1) == 1:
        return x
    return (x[:1] if x.stride(0) == 0 else x).contiguous()


def _strides(x: Tensor) -> list[int]:
    """Zero for axes of one entry, such as that of tasks if all share the tensor."""
    return [0 if side == 1 else stride for side, stride in zip(x.shape, x.stride(), strict=True)]


def _launch(
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
    """Runs a kernel: images ``[tasks, examples, height, width, channels]`` are those that the filters go over."""
    if 0 in grid:
        return
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    *_, height, width, channels = images.shape
    sizes = filters, channels, height, width, size, stride, tile.rows, tile.columns, tile.depth, precision
    with torch.cuda.device_of(images):
        _compiled()[name][grid](*operands, *sizes, **options)

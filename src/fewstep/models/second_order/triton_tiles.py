"""How the products of :mod:`fewstep.models.second_order.triton_convolution` are cut into tiles, by their sizes."""

from __future__ import annotations

from typing import NamedTuple

PRECISIONS = "ieee", "tf32", "tf32x3", "bf16"
"""Of the factors of a product; sums are float32. "tf32x3" multiplies high and low parts, nearly as exact as float32."""

PROGRAMS = 256
"""About two for each multiprocessor of an H100: so many at a time hide what each waits for."""


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
        return tasks * parts(rows, high) * parts(columns, wide)

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
    splits = splits_of_sum(tasks * parts(filters, high) * parts(columns, wide), rows, part)
    return Tile(high, wide, part, _warps(high, wide, precision, precision == "tf32"), 3, splits)


def splits_of_sum(programs: int, rows: int, depth: int) -> int:
    """Among how many programs each of some is split, of which each adds up products of so many rows, depth by depth."""
    return 1 if programs >= PROGRAMS else min(parts(3 * PROGRAMS, programs), max(1, rows // (4 * depth)))


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


def parts(number: int, size: int) -> int:
    """How many parts of a size a number takes."""
    return -(-number // size)

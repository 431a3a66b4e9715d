"""The tile sizes of the matrix products in ``triton_convolution.py``, chosen by the sizes of the products."""

from __future__ import annotations

from typing import NamedTuple

PRECISIONS = "ieee", "tf32", "tf32x3", "bf16"
"""Of the factors of a product; sums are float32. "tf32x3" multiplies high and low parts, nearly as exact as float32."""

PROGRAMS = 256
"""The desired number of programs, about two per multiprocessor of an H100, which hides memory latency."""


class Tile(NamedTuple):
    """The part of a product [rows, depth] · [depth, columns] that one program computes; powers of two from 16."""

    rows: int
    columns: int
    depth: int
    """The number of terms of the sum that are added at a time."""
    warps: int
    stages: int
    """The number of such parts that are loaded from memory concurrently."""
    splits: int = 1
    """The number of programs that share a sum, for the gradient of the weights only."""


def tile_of_images(
    tasks: int, rows: int, columns: int, channels: int, depth: int, precision: str, gradient: bool = False
) -> Tile:
    """The tile of a convolution, or of its gradient with respect to the images.

    Args:
        tasks: the number of tasks.
        rows: the number of places in all images of a task.
        columns: the number of filters; for the gradient, of channels.
        channels: of the convolved images.
        depth: channels times the number of places of a filter.
        precision: one of ``PRECISIONS``.
        gradient: whether it is the gradient.
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
    """The tile of the gradient with respect to the weights, whose rows are filters.

    Args:
        tasks: the number of tasks.
        filters: the number of filters of a task.
        columns: channels times the number of places of a filter.
        rows: the number of places in all images of a task, which is the length of the sum.
        precision: one of ``PRECISIONS``.
    """
    high, part = min(64, _power(filters)), min(32, _power(rows))
    wide = min(32 if filters <= 32 else 64, _power(columns))
    splits = splits_of_sum(tasks * parts(filters, high) * parts(columns, wide), rows, part)
    return Tile(high, wide, part, _warps(high, wide, precision, precision == "tf32"), 3, splits)


def splits_of_sum(programs: int, rows: int, depth: int) -> int:
    """The number of programs among which a sum over ``rows`` is split; each adds ``depth`` products at a time."""
    return 1 if programs >= PROGRAMS else min(parts(3 * PROGRAMS, programs), max(1, rows // (4 * depth)))


def _warps(rows: int, columns: int, precision: str, turned: bool) -> int:
    """The number of warps, by how many numbers each thread has to hold.

    Four warps share an instruction for 64 rows. For "tf32" it needs factors whose summed axis is contiguous in memory;
    other factors would have to be transposed while they are loaded.
    """
    if turned or rows * columns < 2048:
        return 2
    return 8 if rows * columns > 4096 and precision in ("ieee", "tf32x3") else 4


def _part_of_depth(channels: int, depth: int, precision: str) -> int:
    """A depth that stays within one place of the filters, if there are enough channels."""
    if channels < 16:
        return min(32, _power(depth))
    return 32 if channels % 32 == 0 and precision != "ieee" else 16


def _power(number: int) -> int:
    """The next power of two, at least 16, the minimum of tensor cores."""
    return max(16, 1 << (number - 1).bit_length())


def parts(number: int, size: int) -> int:
    """⌈number/size⌉."""
    return -(-number // size)

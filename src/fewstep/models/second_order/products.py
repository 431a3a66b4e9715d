"""Convolution with separate weights for each task, as matrix products with a row for every place of every image.

The patches of the images, which are several times as large as the images, are computed for as many tasks at once as fit
into the cache. With few images per task this is faster than convolution kernels, grouped or one task after the other.
On a GPU, Triton kernels compute the products without storing the patches (``triton_convolution.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.models.second_order import triton_convolution
from fewstep.models.second_order.operation import channels_first, channels_last
from fewstep.models.second_order.triton_convolution import present_precision

aten = torch.ops.aten

Images = Float[Tensor, "... examples channels height width"]
Filters = Float[Tensor, "... filters size size channels"]
Maps = Float[Tensor, "... examples filters newheight newwidth"]

AT_ONCE = 2**21, 2**23
"""Bytes of patches that are stored at once, on one CPU thread (the size of a core's cache) and on several."""

FEW_ROWS = {"cpu": 500, "cuda": 2**13}
"""With more places than this in the images of a task, convolution kernels are used."""


def convolution(x: Images, weight: Filters, stride: int) -> Maps:
    """W ∗ x, ``[..., examples, filters, height/stride, width/stride]``."""
    if triton_convolution.takes(x, weight):
        (x, weight), tasks = _flat(x, weight)
        return _unflat(triton_convolution.convolution(x, weight, stride, present_precision()), tasks)
    x, weight, tasks = _together(x, weight)
    sides = [-(-side // stride) for side in x.shape[-2:]]
    if x.shape[2] > 1 and _has_many_rows(x.shape[1] * sides[0] * sides[1], x):
        padding = weight.shape[-2] // 2
        pairs = zip(x.unbind(), channels_first(weight).unbind(), strict=True)
        return torch.stack([torch.conv2d(*pair, None, stride, padding) for pair in pairs]).unflatten(0, tasks)
    columns = weight.flatten(2).mT
    parts = [patches @ columns[part] for part, patches in _patches(x, weight.shape[-2], stride)]
    return channels_first(torch.cat(parts).view(*tasks, x.shape[1], *sides, weight.shape[1]))


def weight_gradient(g: Maps, x: Images, size: int, stride: int) -> Filters:
    """The gradient of ⟨g, W ∗ x⟩ with respect to W, ``[..., filters, size, size, channels]``."""
    if triton_convolution.takes(g, x):
        (g, x), tasks = _flat(g, x)
        return _unflat(triton_convolution.weight_gradient(g, x, size, stride, present_precision()), tasks)
    g, x, tasks = _together(g, x)
    if x.is_cuda and _has_many_rows(g[0].numel() // g.shape[2], x):  # products of this depth do not fill a GPU
        pairs = zip(g.unbind(), x.unbind(), strict=True)
        found = torch.stack([weight_gradient_of_one(*pair, size, stride) for pair in pairs])
        return found.reshape(*tasks, *found.shape[1:])
    values = channels_last(g).flatten(1, 3)
    if x.shape[2] == 1:  # few columns: the transposed product is faster
        parts = [(patches.mT @ values[part]).mT for part, patches in _patches(x, size, stride)]
    else:
        parts = [values[part].mT @ patches for part, patches in _patches(x, size, stride)]
    return torch.cat(parts).view(*tasks, g.shape[2], size, size, x.shape[2])


def input_gradient(g: Maps, weight: Filters, height: int, width: int, stride: int) -> Images:
    """The gradient of ⟨g, W ∗ x⟩ with respect to x, ``[..., examples, channels, height, width]``."""
    if triton_convolution.takes(g, weight):
        (g, weight), tasks = _flat(g, weight)
        options = height, width, stride, present_precision()
        return _unflat(triton_convolution.input_gradient(g, weight, *options), tasks)
    if stride == 1:
        return convolution(g, weight.flip((-3, -2)).transpose(-4, -1), 1)
    g, weight, tasks = _together(g, weight)
    size, sides = weight.shape[-2], (height, width)
    if _has_many_rows(g[0].numel() // g.shape[2], g):
        pairs = zip(g.unbind(), channels_first(weight).unbind(), strict=True)
        return torch.stack([input_gradient_of_one(*pair, height, width, stride) for pair in pairs]).unflatten(0, tasks)
    margin = size // 2
    create = g.new_zeros if size < stride else g.new_empty
    x = create(len(g), g.shape[1], *sides, weight.shape[-1])
    for part in _parts(g, g[0].numel() * size**2 // stride**2):
        padded = _padded(g[part], size)
        # Positions with the same remainder modulo the stride depend on the same entries of the filters.
        for first in product(range(stride), repeat=2):
            reached = x[part, :, first[0] :: stride, first[1] :: stride]
            entries = [[i for i in range(size) if (start + margin - i) % stride == 0] for start in first]
            patches, rows = [], []
            for i, j in product(*entries):
                top, left = (margin + (start + margin - at) // stride for start, at in zip(first, (i, j), strict=True))
                patches.append(padded.narrow(2, top, reached.shape[2]).narrow(3, left, reached.shape[3]))
                rows.append(weight[part, :, i, j])
            if patches:
                values = torch.cat(patches, -1).flatten(1, 3) @ torch.cat(rows, 1)
                reached.copy_(values.view_as(reached))
    return channels_first(x.unflatten(0, tasks))


def input_gradient_of_one(g: Tensor, weight: Tensor, height: int, width: int, stride: int) -> Tensor:
    """``input_gradient`` of one task, by a convolution kernel: W is ``[filters, channels, size, size]``."""
    x = channels_first(g.new_empty(len(g), height, width, weight.shape[1]))  # only its shape is used
    return convolution_backward(g, x, weight, stride, 0)


def weight_gradient_of_one(g: Tensor, x: Tensor, size: int, stride: int) -> Tensor:
    """``weight_gradient`` of one task, by a convolution kernel; the result is ``[filters, size, size, channels]``."""
    weight = channels_first(g.new_empty(g.shape[1], size, size, x.shape[1]))  # only its shape is used
    return channels_last(convolution_backward(g, x, weight, stride, 1))


def convolution_backward(g: Tensor, x: Tensor, weight: Tensor, stride: int, wanted: int) -> Tensor:
    """PyTorch's gradient with respect to the images (``wanted`` 0) or the weights (1)."""
    padding, mask = weight.shape[-1] // 2, [wanted == 0, wanted == 1, False]
    options = [stride, stride], [padding, padding], [1, 1], False, [0, 0], 1
    return aten.convolution_backward(g, x, weight, None, *options, mask)[wanted]


def _has_many_rows(rows: int, x: Tensor) -> bool:
    return rows > FEW_ROWS.get(x.device.type, sys.maxsize)


def _flat(*tensors: Tensor) -> tuple[list[Tensor], torch.Size]:
    """The tensors with one task axis, of size 1 for a shared tensor, and the original task axes."""
    tasks = torch.broadcast_shapes(*(t.shape[:-4] for t in tensors))
    shared = (t.shape[:-4].numel() == 1 for t in tensors)
    flat = [
        t.expand(*([1] * len(tasks) if one else tasks), *t.shape[-4:]) for t, one in zip(tensors, shared, strict=True)
    ]
    return [t.reshape(-1, *t.shape[-4:]) for t in flat], tasks


def _unflat(found: Tensor, tasks: torch.Size) -> Tensor:
    return found.unflatten(0, tasks) if tasks else found.squeeze(0)


def _together(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
    """Both tensors with one task axis, and the original task axes."""
    tasks = torch.broadcast_shapes(first.shape[:-4], second.shape[:-4])
    first, second = (t.expand(*tasks, *t.shape[-4:]).reshape(-1, *t.shape[-4:]) for t in (first, second))
    return first, second, tasks


def _patches(x: Tensor, size: int, stride: int) -> Iterator[tuple[slice, Tensor]]:
    """The patches ``[tasks, examples · places, size² · channels]``, for a slice of the tasks at a time."""
    for part in _parts(x, x[0].numel() * size**2 // stride**2):
        windows = _padded(x[part], size).unfold(2, size, stride).unfold(3, size, stride)  # adds the window axes last
        yield part, windows.movedim(4, -1).flatten(4).flatten(1, 3)


def _padded(x: Tensor, size: int) -> Tensor:
    """Zero-padded images, ``[tasks, examples, height + size − 1, width + size − 1, channels]``."""
    margin, x = size // 2, channels_last(x)
    if margin == 0:
        return x
    height, width = x.shape[2:4]
    padded = x.new_empty(*x.shape[:2], height + 2 * margin, width + 2 * margin, x.shape[4])
    for axis, side in (2, height), (3, width):  # only the border, since filling everything takes longer than the copy
        padded.narrow(axis, 0, margin).zero_()
        padded.narrow(axis, margin + side, margin).zero_()
    padded[:, :, margin : margin + height, margin : margin + width] = x
    return padded


def _parts(x: Tensor, numbers: int) -> Iterator[slice]:
    """Slices of the tasks that fit into the cache, if each task stores this many numbers."""
    limit = AT_ONCE[torch.get_num_threads() > 1] if x.device.type == "cpu" else 2**30  # 1 GiB
    at_once = max(1, limit // (numbers * x.element_size()))
    return (slice(start, start + at_once) for start in range(0, len(x), at_once))

"""Convolution, batch normalisation and max-pooling whose second derivatives take few and fast kernels.

PyTorch takes the derivative of their gradients apart into dozens of elementwise operations, which is most of the time
of a meta-gradient of a convolutional network. Both have closed forms made of the kernels of the gradient itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def normalize(x: Tensor, eps: float) -> Tensor:
    """z = (x − mean)/√(variance + ε), per channel over the examples and positions of a batch.

    Args:
        x: ``[examples, channels, ...]``.
        eps: ε.

    >>> x = torch.randn(8, 3, 5, 5)
    >>> torch.allclose(normalize(x, 1e-5), torch.nn.functional.batch_norm(x, None, None, training=True), atol=1e-5)
    True
    """
    return _Normalize.apply(x, eps)[0]


def convolve(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """The convolution of images with square filters of odd size, padded by zeros to keep the size if the stride is 1.

    Args:
        x: ``[examples, channels, height, width]``.
        weight: ``[filters, channels, size, size]``.
        stride: of the filters, in both directions.

    >>> convolve(torch.rand(2, 3, 28, 28), torch.rand(8, 3, 3, 3), stride=2).shape
    torch.Size([2, 8, 14, 14])
    """
    return _Convolve.apply(x, weight, stride, 1)


def max_pool(x: Tensor) -> Tensor:
    """The largest of every 2×2 positions, ``[examples, channels, height, width]`` to half the height and width.

    >>> max_pool(torch.arange(16.0).view(1, 1, 4, 4))
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    """
    return _MaxPool.apply(x)[0]


# Normalisation. With r = 1/√(variance + ε), n values per channel and means over them, its Jacobian is symmetric:
#     B(g) = r·(g − mean(g) − z·mean(z·g)),
# so that the fused backward kernel gives the forward-mode derivative as well. The derivative of B(g) in x, in the
# direction v, is symmetric in g and v:
#     D(g, v) = −r·(mean(z·v)·B(g) + mean(z·g)·B(v) + z·⟨v, B(g)⟩/n).


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return aten.native_batch_norm(x, None, None, None, None, True, 0.0, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        _save(ctx, inputs[0], *output[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, None]:
        if g is None:
            return None, None
        return _NormalizeBackward.apply(g, *ctx.saved_tensors)[0], None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        return _backward(dx, *ctx.saved_tensors)[0], None, None

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], x: Tensor, eps: float) -> tuple[Any, tuple[int, ...]]:
        outputs = _Normalize.apply(_fold(x, dims[0], 1, info.batch_size), eps)
        return _unfold(outputs, info.batch_size)


class _NormalizeBackward(torch.autograd.Function):
    @staticmethod
    def forward(g: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _backward(g, x, mean, rstd)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        _save(ctx, *inputs, *output)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if v is None:
            return None, None, None, None
        g, x, mean, rstd, *of_g = ctx.saved_tensors
        of_v = _NormalizeBackward.apply(v, x, mean, rstd)
        return of_v[0], _second(g, of_g, v, of_v, x, mean, rstd), None, None

    @staticmethod
    def jvp(ctx: Any, dg: Tensor | None, dx: Tensor | None, *_: Any) -> tuple[Tensor | None, None, None]:
        g, x, mean, rstd, *of_g = ctx.saved_tensors
        by_g = None if dg is None else _backward(dg, x, mean, rstd)[0]
        if dx is None:
            return by_g, None, None
        return _sum(by_g, _second(g, of_g, dx, _backward(dx, x, mean, rstd), x, mean, rstd)), None, None

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Any, tuple[int, ...]]:
        size = info.batch_size
        g, x = (_fold(tensor, dim, 1, size) for tensor, dim in zip(tensors[:2], dims, strict=False))
        statistics = (_fold(tensor, dim, 0, size) for tensor, dim in zip(tensors[2:], dims[2:], strict=True))
        return _unfold(_NormalizeBackward.apply(g, x, *statistics), size)


def _backward(g: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """B(g), n·mean(z·g), n·mean(g)."""
    ones = torch.ones_like(rstd)
    return aten.native_batch_norm_backward(g, x, ones, None, None, mean, rstd, True, 0.0, [True, True, True])


def _second(g: Tensor, of_g: Any, v: Tensor, of_v: Any, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """D(g, v)."""
    n = x.numel() // x.shape[1]
    (b_of_g, zg, sum_g), (b_of_v, zv, sum_v) = of_g, of_v
    # Σ v·g per channel: what the kernel takes for Σ z·g when the mean is 0 and r is 1
    zeros, ones = torch.zeros_like(mean), torch.ones_like(rstd)
    vg = aten.native_batch_norm_backward(g, v, ones, None, None, zeros, ones, True, 0.0, [False, True, False])[1]
    product = rstd * (vg - sum_g * sum_v / n - zg * zv / n)  # ⟨v, B(g)⟩
    of_x = -rstd.square() * product / n
    result = torch.addcmul(_channels(-of_x * mean, x), x, _channels(of_x, x))
    result = torch.addcmul(result, b_of_g, _channels(-rstd * zv / n, x))
    return torch.addcmul(result, b_of_v, _channels(-rstd * zg / n, x))


def _channels(value: Tensor, x: Tensor) -> Tensor:
    return value.view(1, -1, *[1] * (x.ndim - 2))


# Convolution is linear in the images and in the weights, and so are its two gradients, each of which is the derivative
# of another: the three are closed under differentiation.


class _Convolve(torch.autograd.Function):
    """y = W ∗ x."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
        return torch.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, *ctx.options = inputs
        _save(ctx, x, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        if g is None:
            return None, None, None, None
        x, weight = ctx.saved_tensors
        of_x = _InputGradient.apply(g, weight, x.detach(), *ctx.options) if ctx.needs_input_grad[0] else None
        return of_x, _WeightGradient.apply(g, x, weight.detach(), *ctx.options), None, None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dw: Tensor | None, *_: Any) -> Tensor | None:
        x, weight = ctx.saved_tensors
        of_x = None if dx is None else _Convolve.apply(dx, weight, *ctx.options)
        return _sum(of_x, None if dw is None else _Convolve.apply(x, dw, *ctx.options))

    @staticmethod
    def vmap(info: Any, dims: Any, x: Tensor, weight: Tensor, stride: int, groups: int) -> tuple[Tensor, int]:
        size = info.batch_size
        if dims[1] is None:
            return _Convolve.apply(_fold(x, dims[0], 0, size), weight, stride, groups).unflatten(0, (size, -1)), 0
        x, weight = _fold(x, dims[0], 1, size), _fold(weight, dims[1], 0, size)
        return _Convolve.apply(x, weight, stride, groups * size).unflatten(1, (size, -1)), 1


class _InputGradient(torch.autograd.Function):
    """The gradient for x of ⟨g, W ∗ x⟩; x itself only tells its shape."""

    @staticmethod
    def forward(g: Tensor, weight: Tensor, x: Tensor, stride: int, groups: int) -> Tensor:
        return _convolution_backward(g, x, weight, stride, groups, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.stride, ctx.groups = inputs
        _save(ctx, *tensors)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, ...]:
        if v is None:
            return None, None, None, None, None
        g, weight, _ = ctx.saved_tensors
        options = ctx.stride, ctx.groups
        of_weight = _WeightGradient.apply(g, v, weight.detach(), *options)
        return _Convolve.apply(v, weight, *options), of_weight, None, None, None

    @staticmethod
    def jvp(ctx: Any, dg: Tensor | None, dw: Tensor | None, *_: Any) -> Tensor | None:
        g, weight, x = ctx.saved_tensors
        options = ctx.stride, ctx.groups
        of_g = None if dg is None else _InputGradient.apply(dg, weight, x, *options)
        return _sum(of_g, None if dw is None else _InputGradient.apply(g, dw, x, *options))

    @staticmethod
    def vmap(
        info: Any, dims: Any, g: Tensor, weight: Tensor, x: Tensor, stride: int, groups: int
    ) -> tuple[Tensor, int]:
        size = info.batch_size
        into = 0 if dims[1] is None else 1
        g, x = _fold(g, dims[0], into, size), _fold(x, dims[2], into, size)
        if dims[1] is not None:
            weight, groups = _fold(weight, dims[1], 0, size), groups * size
        return _InputGradient.apply(g, weight, x, stride, groups).unflatten(into, (size, -1)), into


class _WeightGradient(torch.autograd.Function):
    """The gradient for W of ⟨g, W ∗ x⟩; W itself only tells its shape."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
        return _convolution_backward(g, x, weight, stride, groups, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.stride, ctx.groups = inputs
        _save(ctx, *tensors)

    @staticmethod
    def backward(ctx: Any, u: Tensor | None) -> tuple[Tensor | None, ...]:
        if u is None:
            return None, None, None, None, None
        g, x, _ = ctx.saved_tensors
        options = ctx.stride, ctx.groups
        of_x = _InputGradient.apply(g, u, x.detach(), *options) if ctx.needs_input_grad[1] else None
        return _Convolve.apply(x, u, *options), of_x, None, None, None

    @staticmethod
    def jvp(ctx: Any, dg: Tensor | None, dx: Tensor | None, *_: Any) -> Tensor | None:
        g, x, weight = ctx.saved_tensors
        options = ctx.stride, ctx.groups
        of_g = None if dg is None else _WeightGradient.apply(dg, x, weight, *options)
        return _sum(of_g, None if dx is None else _WeightGradient.apply(g, dx, weight, *options))

    @staticmethod
    def vmap(
        info: Any, dims: Any, g: Tensor, x: Tensor, weight: Tensor, stride: int, groups: int
    ) -> tuple[Tensor, int]:
        size = info.batch_size
        g, x = _fold(g, dims[0], 1, size), _fold(x, dims[1], 1, size)
        weight = _fold(weight, dims[2], 0, size)
        return _WeightGradient.apply(g, x, weight, stride, groups * size).unflatten(0, (size, -1)), 0


def _convolution_backward(g: Tensor, x: Tensor, weight: Tensor, stride: int, groups: int, wanted: int) -> Tensor:
    padding, mask = weight.shape[-1] // 2, [wanted == 0, wanted == 1, False]
    options = [stride, stride], [padding, padding], [1, 1], False, [0, 0], groups
    return aten.convolution_backward(g, x, weight, None, *options, mask)[wanted]


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return second if first is None else first if second is None else first + second


# Pooling takes the values at some places, and both its derivatives take or place values there.


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return aten.max_pool2d_with_indices(x, [2, 2], [2, 2])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.size = inputs[0].shape[-2:]
        _save(ctx, output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: Any) -> Tensor | None:
        return None if g is None else _PutAt.apply(g, *ctx.saved_tensors, ctx.size)

    @staticmethod
    def jvp(ctx: Any, dx: Tensor) -> tuple[Tensor, None]:
        return _TakeAt.apply(dx, *ctx.saved_tensors), None

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], x: Tensor) -> tuple[Any, tuple[int, int]]:
        pooled, places = _MaxPool.apply(_fold(x, dims[0], 0, info.batch_size))
        return tuple(t.unflatten(0, (info.batch_size, -1)) for t in (pooled, places)), (0, 0)


class _PutAt(torch.autograd.Function):
    """Values at their places among zeros, in images of the given height and width and the layout of the places."""

    @staticmethod
    def forward(values: Tensor, places: Tensor, size: torch.Size) -> Tensor:
        form = torch.channels_last if _channels_last(places) else torch.contiguous_format
        # Only the shape and the layout of the image are looked at.
        image = values.new_empty(1).expand(*places.shape[:2], *size)
        if form is torch.channels_last:
            image = torch.empty(image.shape, dtype=values.dtype, device=values.device, memory_format=form)
        values = values.contiguous(memory_format=form)
        return aten.max_pool2d_with_indices_backward(values, image, [2, 2], [2, 2], [0, 0], [1, 1], False, places)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, torch.Size], output: Tensor) -> None:
        ctx.size = inputs[2]
        _save(ctx, inputs[1])

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
        values, places = _fold(values, dims[0], 0, info.batch_size), _fold(places, dims[1], 0, info.batch_size)
        return _PutAt.apply(values, places, size).unflatten(0, (info.batch_size, -1)), 0


class _TakeAt(torch.autograd.Function):
    """The values of ``x`` at the given places."""

    @staticmethod
    def forward(x: Tensor, places: Tensor) -> Tensor:
        if not _channels_last(places):
            return x.flatten(-2).gather(-1, places.flatten(-2)).view_as(places)
        rows, picked = (t.permute(0, 2, 3, 1).flatten(1, 2) for t in (x, places))
        examples, channels, height, width = places.shape
        return rows.gather(1, picked).view(examples, height, width, channels).permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.size = inputs[0].shape[-2:]
        _save(ctx, inputs[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, None]:
        return None if g is None else _PutAt.apply(g, *ctx.saved_tensors, ctx.size), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, _: Any) -> Tensor:
        return _TakeAt.apply(dx, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
        folded = [_fold(tensor, dim, 0, info.batch_size) for tensor, dim in zip(tensors, dims, strict=True)]
        return _TakeAt.apply(*folded).unflatten(0, (info.batch_size, -1)), 0


def _channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


# Under vmap the task axis becomes part of the channels (normalisation) or of the examples (pooling).


def _fold(tensor: Tensor, dim: int | None, into: int, size: int) -> Tensor:
    if dim is None:
        tensor = tensor.unsqueeze(into).expand(*tensor.shape[:into], size, *tensor.shape[into:])
    else:
        tensor = tensor.movedim(dim, into)
    return tensor.flatten(into, into + 1)


def _unfold(outputs: tuple[Tensor, Tensor, Tensor], size: int) -> tuple[Any, tuple[int, ...]]:
    x, *per_channel = outputs
    return (x.unflatten(1, (size, -1)), *(value.unflatten(0, (size, -1)) for value in per_channel)), (1, 0, 0)


def _save(ctx: Any, *tensors: Tensor) -> None:
    ctx.set_materialize_grads(False)  # no product is worked out with a tangent that is zero throughout
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)

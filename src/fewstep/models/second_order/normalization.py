"""Normalisation by the statistics of a batch, with closed-form first and second derivatives."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.models.second_order.operation import Operation, add, fused
from fewstep.models.second_order.pooling import add_at, largest, take_at

aten = torch.ops.aten


def normalize(x: Float[Tensor, "examples channels *places"], eps: float) -> Float[Tensor, "examples channels *places"]:
    """Normalise each channel of a batch: z = (x − mean)/√(variance + ε), over the examples and positions.

    Args:
        x: ``[examples, channels, ...]``.
        eps: ε.

    Examples:
        >>> x = torch.randn(8, 3, 5, 5)
        >>> torch.allclose(normalize(x, 1e-5), torch.nn.functional.batch_norm(x, None, None, training=True), atol=1e-5)
        True
    """
    return _Normalize.apply(x, eps, 1 - x.ndim)[0]


def normalize_and_pool(
    x: Float[Tensor, "examples channels height width"], eps: float
) -> Float[Tensor, "examples channels height//2 width//2"]:
    """``max_pool(normalize(x, eps))`` in a third of the time, since only the largest values are normalised.

    Args:
        x: ``[examples, channels, height, width]``.
        eps: ε.

    Examples:
        >>> x = torch.randn(8, 3, 6, 6)
        >>> normalize_and_pool(x, 1e-5).shape
        torch.Size([8, 3, 3, 3])
    """
    return _NormalizeAndPool.apply(x, eps, -3)[0]


# With r = 1/√(variance + ε) and means over the n values of a channel, the Jacobian of normalisation is symmetric:
#     B(g) = r·(g − mean(g) − z·mean(z·g)).
# The derivative of ⟨v, B(g)⟩ with respect to x is symmetric in g and v:
#     D(g, v) = r²·(mean(z·v)·(z·mean(z·g) − g) + mean(z·g)·(z·mean(z·v) − v) + mean(z·v)·mean(g) + mean(z·g)·mean(v))
#               − r·z·mean(v·B(g)).
# If pooling follows, J(v) gathers the values of B(v) at the places of the maxima, and Jᵀ(g) is B applied to g scattered
# to these places; only the last line of each is computed for all positions.


class _Normalize(Operation):
    """z, and what the derivatives need: mean, r, and with pooling z again and the places of the maxima."""

    @staticmethod
    def forward(x: Tensor, eps: float, channel: int) -> tuple[Tensor, ...]:
        centred, mean, rstd = _centred(x, eps, channel)
        return centred.mul_(rstd), mean, rstd

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.channel = inputs[2]
        Operation.keep(ctx, inputs[0], *output[1:], *[None] * (5 - len(output)))
        ctx.kept = len(output) - 1

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        return None if g is None else _Back.apply(g, *ctx.saved_tensors, ctx.channel)[0], None, None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, *_: Any) -> tuple[Any, ...]:
        return _Forth.apply(dx, *ctx.saved_tensors, ctx.channel)[0], *[None] * ctx.kept


class _NormalizeAndPool(_Normalize):
    @staticmethod
    def forward(x: Tensor, eps: float, channel: int) -> tuple[Tensor, ...]:
        mean, rstd = _statistics(x, eps, channel)
        values, places = largest(x)
        z = (values - mean).mul_(rstd)
        return z, mean, rstd, z.clone(), places


class _Back(Operation):
    """Jᵀ(g), mean(g), mean(z·g)."""

    @staticmethod
    def forward(
        g: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, z: Tensor | None, places: Tensor | None, channel: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        if z is None:
            mean_g, mean_zg = _means(g, x, mean, rstd, channel)
        else:
            mean_g, mean_zg = (_sum(values, channel) / _count(x, channel) for values in (g, g * z))
        of_x = -rstd.square() * mean_zg
        result = torch.addcmul(-rstd * mean_g - of_x * mean, x, of_x)
        result = result.addcmul_(g, rstd) if places is None else add_at(places, g * rstd, result)
        return result, mean_g, mean_zg

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.channel = inputs
        ctx.mark_non_differentiable(*output[1:])
        Operation.keep(ctx, *tensors, *output[1:])

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if v is None:
            return (None,) * 7
        g, *rest, mean_g, mean_zg = ctx.saved_tensors
        of_v = _Forth.apply(v, *rest, ctx.channel)
        of_x = _Second.apply(g, mean_g, mean_zg, v, *of_v, *rest, ctx.channel) if ctx.needs_input_grad[1] else None
        return of_v[0], of_x, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, dg: Tensor | None, dx: Tensor | None, *_: Any) -> tuple[Tensor | None, None, None]:
        g, *rest, mean_g, mean_zg = ctx.saved_tensors
        by_g = None if dg is None else _Back.apply(dg, *rest, ctx.channel)[0]
        if dx is None:
            return by_g, None, None
        of_dx = _Forth.apply(dx, *rest, ctx.channel)
        return add(by_g, _Second.apply(g, mean_g, mean_zg, dx, *of_dx, *rest, ctx.channel)), None, None


class _Forth(Operation):
    """J(v), mean(v), mean(z·v)."""

    @staticmethod
    def forward(
        v: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, z: Tensor | None, places: Tensor | None, channel: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean_v, mean_zv = _means(v, x, mean, rstd, channel)
        picked, z = (v, _z(x, mean, rstd)) if places is None or z is None else (take_at(places, v), z)
        return torch.addcmul(picked - mean_v, z, -mean_zv).mul_(rstd), mean_v, mean_zv

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.channel = inputs
        ctx.mark_non_differentiable(*output[1:])
        Operation.keep(ctx, *tensors, *output)

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if u is None:
            return (None,) * 7
        v, *rest, of_v, mean_v, mean_zv = ctx.saved_tensors
        of_u = _Back.apply(u, *rest, ctx.channel)
        of_x = None
        if ctx.needs_input_grad[1]:
            of_x = _Second.apply(u, *of_u[1:], v, of_v, mean_v, mean_zv, *rest, ctx.channel)
        return of_u[0], of_x, None, None, None, None, None


class _Second(Operation):
    """D(g, v), from g, v and their means."""

    @staticmethod
    def forward(
        g: Tensor,
        mean_g: Tensor,
        mean_zg: Tensor,
        v: Tensor,
        of_v: Tensor,
        mean_v: Tensor,
        mean_zv: Tensor,
        x: Tensor,
        mean: Tensor,
        rstd: Tensor,
        z: Tensor | None,
        places: Tensor | None,
        channel: int,
    ) -> Tensor:
        square = rstd.square()
        product = _sum(g * of_v, channel) / _count(x, channel)  # mean(v·B(g)) = mean(g·B(v))
        of_x = rstd * (2 * square * mean_zv * mean_zg - rstd * product)
        result = torch.addcmul(square * (mean_zv * mean_g + mean_zg * mean_v) - of_x * mean, x, of_x)
        result = result.addcmul_(v, -square * mean_zg)
        of_g = -square * mean_zv
        return result.addcmul_(g, of_g) if places is None else add_at(places, g * of_g, result)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, u: Tensor | None) -> tuple[None, ...]:
        if u is not None:
            raise NotImplementedError("Batch normalisation has no third derivatives here. Use torch.nn.BatchNorm2d.")
        return (None,) * 13


def _centred(x: Tensor, eps: float, channel: int) -> tuple[Tensor, Tensor, Tensor]:
    dims = _others(x, channel)
    if fused(x):  # one pass over x
        variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
        return x - mean, mean, (variance + eps).rsqrt()
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    return centred, mean, (centred.square().mean(dims, keepdim=True) + eps).rsqrt_()


def _statistics(x: Tensor, eps: float, channel: int) -> tuple[Tensor, Tensor]:
    if x.ndim > 4 or fused(x):
        return _centred(x, eps, channel)[1:]
    mean, variance = aten.batch_norm_update_stats(x, None, None, 0.0)
    return mean.view(-1, 1, 1), (variance + eps).rsqrt_().view(-1, 1, 1)


def _means(v: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, channel: int) -> tuple[Tensor, Tensor]:
    """mean(v), mean(z·v) over all positions."""
    # The CUDA kernel computes these sums only if there are weights.
    if x.ndim == v.ndim == 4 and x.device.type == "cpu" and not fused(x):
        per_channel = mean.flatten(), rstd.flatten()
        _, sum_zv, sum_v = aten.native_batch_norm_backward(
            v, x, None, None, None, *per_channel, True, 0.0, [False, True, True]
        )
        sums = sum_v.view(-1, 1, 1), sum_zv.view(-1, 1, 1)
    else:
        sums = _sum(v, channel), _sum(v * _z(x, mean, rstd), channel)
    return tuple(s / _count(x, channel) for s in sums)


def _z(x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    return torch.addcmul(-mean * rstd, x, rstd)


def _sum(x: Tensor, channel: int) -> Tensor:
    return x.sum(_others(x, channel), keepdim=True)


def _others(x: Tensor, channel: int) -> list[int]:
    """The axes over which statistics are computed: that of the examples, and those of the positions."""
    return [channel - 1, *range(channel + 1, 0)]


def _count(x: Tensor, channel: int) -> int:
    return x.shape[channel - 1] * x.shape[channel:].numel() // x.shape[channel]

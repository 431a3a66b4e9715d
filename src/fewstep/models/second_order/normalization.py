"""Normalisation by the statistics of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fewstep.models.second_order.operation import (
    Operation,
    add,
    into_channels,
    into_rows,
    out_of_channels,
    out_of_rows,
)

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


# Normalisation. With r = 1/√(variance + ε), n values per channel and means over them, its Jacobian is symmetric:
#     B(g) = r·(g − mean(g) − z·mean(z·g)),
# so that the fused backward kernel gives the forward-mode derivative as well. The derivative of B(g) in x, in the
# direction v, is symmetric in g and v:
#     D(g, v) = −r·(mean(z·v)·B(g) + mean(z·g)·B(v) + z·⟨v, B(g)⟩/n).


class _Normalize(Operation):
    @staticmethod
    def forward(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return aten.native_batch_norm(x, None, None, None, None, True, 0.0, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        Operation.keep(ctx, inputs[0], *output[1:])

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
        outputs = _Normalize.apply(into_channels(x, dims[0], info.batch_size), eps)
        return _unfolded(outputs, info.batch_size)


class _NormalizeBackward(Operation):
    @staticmethod
    def forward(g: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _backward(g, x, mean, rstd)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        Operation.keep(ctx, *inputs, *output)

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
        return add(by_g, _second(g, of_g, dx, _backward(dx, x, mean, rstd), x, mean, rstd)), None, None

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Any, tuple[int, ...]]:
        tasks = info.batch_size
        g, x = (into_channels(tensor, dim, tasks) for tensor, dim in zip(tensors[:2], dims, strict=False))
        statistics = (into_rows(tensor, dim, tasks) for tensor, dim in zip(tensors[2:], dims[2:], strict=True))
        return _unfolded(_NormalizeBackward.apply(g, x, *statistics), tasks)


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


def _unfolded(outputs: tuple[Tensor, Tensor, Tensor], tasks: int) -> tuple[Any, tuple[int, int, int]]:
    x, *per_channel = outputs
    return (out_of_channels(x, tasks), *(out_of_rows(value, tasks) for value in per_channel)), (1, 0, 0)

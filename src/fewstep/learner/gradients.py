"""Meta-gradients worked out ahead of ``backward()``: accumulated over chunks of tasks, or compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fewstep.tasks.trees import mapped


def with_gradients(value: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """``value`` as a tensor whose ``backward()`` gives the parameters these gradients."""
    return _WithGradients.apply((value, gradients), *parameters)


def accumulate(parts: Sequence[Callable[[], Tensor]], parameters: Sequence[Tensor], scale: float) -> Tensor:
    """``scale·Σ parts``, each differentiated before the next is worked out: the memory of one part at a time."""
    total: Tensor | None = None
    sums: list[Tensor | None] = [None] * len(parameters)
    for part in parts:
        value = part() * scale
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        sums = [g if s is None else s if g is None else s + g for s, g in zip(sums, gradients, strict=True)]
        total = value.detach() if total is None else total + value.detach()
    assert total is not None
    return with_gradients(total, parameters, sums)


def laid_out_like(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the parameter's order in memory, which optimisers may rely on and autograd sees to."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


@contextmanager
def outside_inference_mode(tree: Any) -> Iterator[Any]:
    """Inside, ``torch.inference_mode`` is off, and gradients are not recorded by default if it was on.

    Gives the data; tensors that were made in inference mode, which autograd does not take, are copied.
    """
    if not torch.is_inference_mode_enabled():
        yield tree
        return
    with torch.inference_mode(False), torch.no_grad():
        yield mapped(lambda tensor: tensor.clone() if tensor.is_inference() else tensor, tree)


class _WithGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, worked_out: tuple[Tensor, Sequence[Tensor | None]], *parameters: Tensor) -> Tensor:
        value, ctx.gradients = worked_out
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        present = [gradient for gradient in ctx.gradients if gradient is not None]
        scaled = iter(torch._foreach_mul(present, cotangent) if present else ())
        return None, *(None if gradient is None else next(scaled) for gradient in ctx.gradients)

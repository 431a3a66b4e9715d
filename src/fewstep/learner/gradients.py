"""Meta-gradients that are computed before ``backward()``: accumulated over parts of a meta-batch, or compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fewstep.parallel import Processes
from fewstep.tasks.trees import mapped


def with_gradients(value: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """``value`` as a tensor whose ``backward()`` adds the given gradients to the parameters."""
    return _WithGradients.apply((value, gradients), *parameters)


Gradient = tuple[Tensor, list[Tensor | None]]
"""A value, and its gradient for each of some tensors."""


def accumulate(parts: Sequence[Callable[[], Tensor]], parameters: Sequence[Tensor], scale: float) -> Gradient:
    """``scale·Σ parts`` and its gradient; a part is differentiated before the next is evaluated, which saves memory."""
    total: Tensor | None = None
    sums: list[Tensor | None] = [None] * len(parameters)
    for part in parts:
        value = part() * scale
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        sums = [g if s is None else s if g is None else s + g for s, g in zip(sums, gradients, strict=True)]
        total = value.detach() if total is None else total + value.detach()
    assert total is not None
    return total, sums


def scaled(value: Tensor, gradients: Sequence[Tensor | None], factor: float) -> Gradient:
    """A value and its gradient, multiplied by a number."""
    return value * factor, [None if gradient is None else gradient * factor for gradient in gradients]


def summed(processes: Processes, own: Callable[[], Gradient], parameters: Sequence[Tensor]) -> Gradient:
    """The sum over processes of a value and its gradient, in one message.

    Args:
        processes: the processes.
        own: computes what this process adds.
        parameters: the tensors of the gradient.
    """
    if processes.size == 1:
        return own()
    found, error = processes.attempt(own)
    value, gradients = found or (None, [None] * len(parameters))
    widest = functools.reduce(torch.promote_types, [tensor.dtype.to_real() for tensor in parameters], torch.float32)
    like = parameters[0].new_empty((), dtype=widest)  # known also to a process that has failed
    total, *sums = processes.sum([None if value is None else value.to(widest), *gradients], [like, *parameters], error)
    assert total is not None
    assert value is not None
    return total.to(value.dtype), sums


def laid_out_like(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with the strides of the parameter, which some optimisers rely on and autograd guarantees."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


@contextmanager
def outside_inference_mode(tree: Any) -> Iterator[Any]:
    """A context without ``torch.inference_mode``; if it was on, gradients are off instead.

    Yields the data, with copies of tensors made in inference mode, which autograd does not accept.
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

"""What the operations share: how they are called, what they keep, and where the task axis goes under vmap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers


class Operation(torch.autograd.Function):
    """A differentiable function that is called often, with positional arguments only."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            return super().apply(*args)
        # What torch.autograd.Function does, without looking up the signature at every call.
        below: Any = super(torch.autograd.Function, cls)
        return below.apply(*unwrap_dead_wrappers(args))

    @staticmethod
    def keep(ctx: Any, *tensors: Tensor) -> None:
        """Keeps tensors for all derivatives, of which none is worked out with a tangent that is zero throughout."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)


def add(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The sum, where ``None`` is zero."""
    return second if first is None else first if second is None else first + second


def layout(x: Tensor) -> torch.memory_format:
    """Whether the kernels see images as channels last."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


# Under vmap the task axis joins another: the channels where each task is worked on for itself (normalisation, and
# convolution by weights of its own), the examples where all are alike. Either way images lie in memory as [examples,
# tasks, channels, height, width], so that nothing is copied from one operation to the next.


def into_channels(tensor: Tensor, dim: int | None, tasks: int) -> Tensor:
    """``[examples, channels, ...]`` with a task axis at ``dim`` as ``[examples, tasks·channels, ...]``."""
    return with_tasks(tensor, dim, 1, tasks).flatten(1, 2)


def out_of_channels(tensor: Tensor, tasks: int) -> Tensor:
    """Back again, with the task axis at 1."""
    return tensor.unflatten(1, (tasks, -1))


def into_examples(tensor: Tensor, dim: int | None, tasks: int) -> Tensor:
    """``[examples, channels, ...]`` with a task axis at ``dim`` as ``[examples·tasks, channels, ...]``."""
    return with_tasks(tensor, dim, 1, tasks).flatten(0, 1)


def out_of_examples(tensor: Tensor, tasks: int) -> Tensor:
    """Back again, with the task axis at 1."""
    return tensor.unflatten(0, (-1, tasks))


def into_rows(tensor: Tensor, dim: int | None, tasks: int) -> Tensor:
    """Statistics ``[channels]`` or weights ``[filters, ...]`` with a task axis at ``dim`` as ``[tasks·rows, ...]``."""
    return with_tasks(tensor, dim, 0, tasks).flatten(0, 1)


def out_of_rows(tensor: Tensor, tasks: int) -> Tensor:
    """Back again, with the task axis at 0."""
    return tensor.unflatten(0, (tasks, -1))


def with_tasks(tensor: Tensor, dim: int | None, into: int, tasks: int) -> Tensor:
    """The tensor with its task axis moved, or with a new one along which it repeats."""
    if dim is not None:
        return tensor.movedim(dim, into)
    return tensor.unsqueeze(into).expand(*tensor.shape[:into], tasks, *tensor.shape[into:])

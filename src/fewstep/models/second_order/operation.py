"""What the operations share: how they are called, what they keep, and how they take tasks at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fewstep.pytorch import traced, transforming, without_dead_wrappers, without_function_modes


class Operation(torch.autograd.Function):
    """A differentiable function that is called often, with positional arguments only.

    Axes in front of those that it speaks of are those of tasks, each for itself; of size 1 where all tasks share a
    tensor. So vmap puts its axis in front.
    """

    @classmethod
    def apply(cls, *args: Any) -> Any:
        if transforming():
            return super().apply(*args)
        # What torch.autograd.Function does, without looking up the signature at every call.
        below: Any = super(torch.autograd.Function, cls)
        with without_function_modes():  # they have nothing to change in here, and look at every call
            return below.apply(*without_dead_wrappers(args))

    @classmethod
    def vmap(cls, info: Any, dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        moved = [
            arg.movedim(dim, 0) if dim is not None else arg.unsqueeze(0) if isinstance(arg, Tensor) else arg
            for arg, dim in zip(args, dims, strict=True)
        ]
        outputs = cls.apply(*moved)
        return outputs, 0 if isinstance(outputs, Tensor) else (0,) * len(outputs)

    @staticmethod
    def keep(ctx: Any, *tensors: Tensor | None) -> None:
        """Keeps tensors for all derivatives, of which none is worked out with a tangent that is zero throughout."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)


def fused(x: Tensor) -> bool:
    """Whether what runs now is traced for a compiler that fuses elementwise operations, as on a GPU."""
    return x.is_cuda and traced()


def add(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The sum, where ``None`` is zero."""
    return second if first is None else first if second is None else first + second


def channels_last(x: Tensor) -> Tensor:
    """``[..., channels, height, width]`` as ``[..., height, width, channels]``, in which order images lie in memory."""
    return x.movedim(-3, -1)


def channels_first(x: Tensor) -> Tensor:
    """Back again."""
    return x.movedim(-1, -3)

"""The base class of the operations: how they are called, what they save, and how they handle task axes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fewstep.pytorch import traced, transforming, without_dead_wrappers, without_function_modes


class Operation(torch.autograd.Function):
    """An ``autograd.Function`` with little overhead per call, which takes positional arguments only.

    Any number of task axes may precede the axes of an operation. An axis has size 1 if all tasks share a tensor. The
    batching rule of vmap therefore only moves its axis to the front.
    """

    @classmethod
    def apply(cls, *args: Any) -> Any:
        if transforming():
            return super().apply(*args)
        # As torch.autograd.Function.apply, but without inspecting the signature at every call.
        below: Any = super(torch.autograd.Function, cls)
        with without_function_modes():  # modes do not need to see what happens inside, and add overhead
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
        """Save tensors for all derivatives; derivatives with respect to tangents that are zero are not computed."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)


def fused(x: Tensor) -> bool:
    """Whether the running code is being traced for a compiler that fuses elementwise operations, as on a GPU."""
    return x.is_cuda and traced()


def add(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The sum, where ``None`` means zero."""
    return second if first is None else first if second is None else first + second


def channels_last(x: Tensor) -> Tensor:
    """``[..., channels, height, width]`` to ``[..., height, width, channels]``, the order of images in memory."""
    return x.movedim(-3, -1)


def channels_first(x: Tensor) -> Tensor:
    """``[..., height, width, channels]`` to ``[..., channels, height, width]``."""
    return x.movedim(-1, -3)

"""The whole meta-step as one compiled graph: adaptation, query loss and meta-gradient, without autograd at run time."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.compiling.captured import captured
from fewstep.compiling.fused import fused
from fewstep.compiling.inductor import compiled
from fewstep.compiling.streams import side_by_side
from fewstep.pytorch import has_cpp_compiler
from fewstep.tasks.trees import Rebuild, constants, split

Parts = Callable[[Any], Sequence[Any]]
"""From a meta-batch to the parts that are evaluated separately, each a meta-batch."""

Function = Callable[[Sequence[Tensor], Any], Tensor]
"""The mean loss of tasks, as a function of the tensors that it depends on and the tasks."""


class CompiledGradient:
    """The mean loss of tasks and its gradient for all tensors that require one, compiled.

    On a CPU, TorchInductor compiles them. On a GPU, it fuses kernels, which are then recorded as a CUDA graph; the
    parts of a meta-batch run concurrently. Another ``kind``, or other precision settings, are compiled separately.

    Args:
        fuses: whether kernels are fused on a GPU before they are recorded.
    """

    def __init__(self, fuses: bool = True) -> None:
        self.fuses = fuses
        self._compiled: dict[Hashable, tuple[Callable[..., Sequence[Tensor]], list[bool]]] = {}
        self._memory: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledGradient, (self.fuses,)  # without compiled functions

    def __call__(
        self, function: Function, tensors: Sequence[Tensor], tasks: Any, kind: Hashable, parts: Parts
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Compute the loss, and its gradient for each tensor that requires one.

        Args:
            function: the function to compile.
            tensors: the tensors that it depends on.
            tasks: a meta-batch. Tensors in it that require a gradient come after ``tensors``.
            kind: identifies what would be compiled differently: shapes, dtypes, devices, choices.
            parts: divides a meta-batch into the parts that a GPU evaluates concurrently.

        Returns:
            The loss, and the gradients; ``None`` for tensors that the loss does not depend on.
        """
        leaves, rebuild = split(tasks)
        layout = tuple([(t.stride(), t.requires_grad) for t in leaves])
        learns = tuple([tensor.requires_grad for tensor in tensors])
        key = kind, layout, learns, constants(tasks), _precision(leaves[0].device.type)
        found = self._compiled.get(key)  # a single lookup, since hashing and comparing trees takes time
        if found is None:
            found = self._compiled[key] = self._compile(function, tensors, leaves, rebuild, parts)
        compiled, reached = found
        with torch.no_grad():
            value, *gradients = compiled(*[tensor.detach() for tensor in (*tensors, *leaves)])
        present = iter(gradients)
        return value, [next(present) if used else None for used in reached]

    def _compile(
        self, function: Function, tensors: Sequence[Tensor], leaves: Sequence[Tensor], rebuild: Rebuild, parts: Parts
    ) -> tuple[Any, list[bool]]:
        learns = [tensor.requires_grad for tensor in (*tensors, *leaves)]
        reached: list[bool] = []

        def value_and_gradient(*flat: Tensor) -> list[Tensor]:
            state = [t.detach().requires_grad_(learn) for t, learn in zip(flat, learns, strict=True)]
            with torch.enable_grad():
                value = function(state[: len(tensors)], rebuild(state[len(tensors) :]))
                learned = [tensor for tensor in state if tensor.requires_grad]
                gradients = torch.autograd.grad(value, learned, allow_unused=True)
            reached[:] = [gradient is not None for gradient in gradients]
            return [value.detach(), *(gradient for gradient in gradients if gradient is not None)]

        state, data = [tensor.detach() for tensor in tensors], [leaf.detach() for leaf in leaves]
        if leaves[0].device.type == "cuda":
            return self._recorded(value_and_gradient, state, data, rebuild, parts), reached
        return compiled(value_and_gradient, [*state, *data]), reached

    def _recorded(
        self,
        value_and_gradient: Callable[..., list[Tensor]],
        state: Sequence[Tensor],
        leaves: Sequence[Tensor],
        rebuild: Rebuild,
        parts_of: Parts,
    ) -> Any:
        """The CUDA graph of all parts of a meta-batch; the value and gradient of each part are fused separately."""
        made: dict[Hashable, Callable[..., Sequence[Tensor]]] = {}

        def of_part(state: Sequence[Tensor], part: Any) -> Sequence[Tensor]:
            flat = [*state, *split(part)[0]]
            shapes = tuple(tensor.shape for tensor in flat)
            if shapes not in made:
                made[shapes] = fused(value_and_gradient, flat) if self.fuses else value_and_gradient
            return made[shapes](*flat)

        def of_all(*flat: Tensor) -> list[Tensor]:
            state, tasks = flat[: -len(leaves)], rebuild(list(flat[-len(leaves) :]))
            parts = parts_of(tasks)
            found = side_by_side([functools.partial(of_part, state, part) for part in parts], flat[0].device)
            if len(parts) == 1:
                return list(found[0])
            shares = [len(part) / len(tasks) for part in parts]
            return [_weighted(values, shares) for values in zip(*found, strict=True)]

        for part in parts_of(rebuild(list(leaves))):  # compiled before the recording starts
            of_part(state, part)
        self._memory = self._memory or torch.cuda.graph_pool_handle()
        return captured(of_all, [*state, *leaves], self._memory)


def _precision(device: str) -> tuple[Any, ...]:
    """The precision settings that a graph depends on: autocast, and on a GPU the precision of float32 products."""
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    if device != "cuda":
        return (autocast,)
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return autocast, convolutions.fp32_precision, torch.backends.cuda.matmul.fp32_precision


def _weighted(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    return torch.stack([value * share for value, share in zip(values, shares, strict=True)]).sum(0)


@functools.cache
def compiler_missing() -> bool:
    """Whether there is no C++ compiler; warns once if so."""
    if not has_cpp_compiler():
        warnings.warn(
            "compile=True needs a C++ compiler, and none was found. The meta-step is not compiled. Install one "
            "(Debian: apt install g++), or set the environment variable CXX to its path.",
            stacklevel=3,
        )
        return True
    return False

"""The whole meta-step as one compiled graph: adaptation, query loss and the meta-gradient, no autograd at run time."""

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
"""From a meta-batch to the parts of it that are worked out by themselves, each a meta-batch."""

Function = Callable[[Sequence[Tensor], Any], Tensor]
"""The mean loss of some tasks, of the tensors that it depends on and the tasks."""


class CompiledGradient:
    """The mean loss of tasks and its gradient in the tensors that require one, compiled.

    On a CPU by TorchInductor, on a GPU fused by it and recorded as a CUDA graph, the parts of a meta-batch side by
    side. Anew for another ``kind`` and under other settings of precision.

    Args:
        fuses: whether kernels are fused on a GPU, or only recorded.
    """

    def __init__(self, fuses: bool = True) -> None:
        self.fuses = fuses
        self._compiled: dict[Hashable, tuple[Callable[..., Sequence[Tensor]], list[bool]]] = {}
        self._memory: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledGradient, (self.fuses,)  # copied or pickled without what is compiled

    def __call__(
        self, function: Function, tensors: Sequence[Tensor], tasks: Any, kind: Hashable, parts: Parts
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The loss, and its gradient in every tensor that requires one; ``None`` where it does not reach.

        Args:
            function: what is compiled.
            tensors: what it depends on.
            tasks: a meta-batch, whose tensors may require gradients too; theirs come after the others.
            kind: tells what would be compiled in another way: shapes, dtypes, devices, choices.
            parts: into which parts a GPU takes a meta-batch.
        """
        leaves, rebuild = split(tasks)
        layout = tuple([(t.stride(), t.requires_grad) for t in leaves])
        learns = tuple([tensor.requires_grad for tensor in tensors])
        key = kind, layout, learns, constants(tasks), _precision(leaves[0].device.type)
        found = self._compiled.get(key)  # once: hashing and comparing trees takes time in a loop of short steps
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
        """The CUDA graph of all parts of a meta-batch; each part's value and gradient is fused for itself."""
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

        for part in parts_of(rebuild(list(leaves))):  # compiled before anything is recorded
            of_part(state, part)
        self._memory = self._memory or torch.cuda.graph_pool_handle()
        return captured(of_all, [*state, *leaves], self._memory)


def _precision(device: str) -> tuple[Any, ...]:
    """PyTorch's settings of precision that a graph is made under: autocast, and on a GPU that of float32 factors."""
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    if device != "cuda":
        return (autocast,)
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return autocast, convolutions.fp32_precision, torch.backends.cuda.matmul.fp32_precision


def _weighted(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    return torch.stack([value * share for value, share in zip(values, shares, strict=True)]).sum(0)


@functools.cache
def compiler_missing() -> bool:
    """Whether there is no C++ compiler; says so, once, if there is none."""
    if not has_cpp_compiler():
        warnings.warn(
            "compile=True needs a C++ compiler and none was found; going on without compiling. Install one "
            "(Debian: apt install g++) or name it in the environment variable CXX.",
            stacklevel=3,
        )
        return True
    return False

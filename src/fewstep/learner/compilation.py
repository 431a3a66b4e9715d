"""The whole meta-step as one compiled graph: adaptation, query loss and the meta-gradient, no autograd at run time."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from fewstep.adaptation.random_numbers import replayed
from fewstep.learner.gradients import with_gradients


class CompiledLoss:
    """``function(tensors, tasks) -> loss`` with its gradient in the tensors that require one, compiled.

    Compiled anew for other shapes, dtypes or devices, and for another ``variant``.
    """

    def __init__(self, function: Callable[[Sequence[Tensor], Any], Tensor]) -> None:
        self.function = function
        self._compiled: dict[Hashable, tuple[Callable[..., Sequence[Tensor]], list[bool]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledLoss, (self.function,)  # copied or pickled without what is compiled

    def __call__(self, tensors: Sequence[Tensor], tasks: Any, variant: Hashable) -> Tensor:
        """The loss, ready for ``backward()``."""
        value, gradients = self.value_and_gradients(tensors, tasks, variant)
        return with_gradients(value, [tensor for tensor in tensors if tensor.requires_grad], gradients)

    def value_and_gradients(
        self, tensors: Sequence[Tensor], tasks: Any, variant: Hashable
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The loss, and its gradient in every tensor that requires one; ``None`` where it does not reach."""
        leaves, spec = tree_flatten(tasks)
        key = (variant, spec, tuple((leaf.shape, leaf.dtype, leaf.device, leaf.stride()) for leaf in leaves))
        found = self._compiled.get(key)  # once: hashing and comparing trees takes time in a loop of short steps
        if found is None:
            found = self._compiled[key] = self._compile(tensors, leaves, spec)
        compiled, reached = found
        with torch.no_grad():
            value, *gradients = compiled(*[tensor.detach() for tensor in tensors], *leaves)
        present = iter(gradients)
        return value, [next(present) if used else None for used in reached]

    def _compile(self, tensors: Sequence[Tensor], leaves: Sequence[Tensor], spec: Any) -> tuple[Any, list[bool]]:
        from torch.fx.experimental.proxy_tensor import make_fx

        learns = [tensor.requires_grad for tensor in tensors]
        reached: list[bool] = []

        def value_and_gradient(*flat: Tensor) -> list[Tensor]:
            state = [t.detach().requires_grad_(learn) for t, learn in zip(flat, learns, strict=False)]
            with torch.enable_grad():
                value = self.function(state, tree_unflatten(flat[len(state) :], spec))
                learned = [tensor for tensor in state if tensor.requires_grad]
                gradients = torch.autograd.grad(value, learned, allow_unused=True)
            reached[:] = [gradient is not None for gradient in gradients]
            return [value.detach(), *(gradient for gradient in gradients if gradient is not None)]

        example: list[Any] = [*(tensor.detach() for tensor in tensors), *leaves]
        with replayed():
            graph = make_fx(value_and_gradient)(*example)
        on_cpu = example[0].device.type == "cpu"
        if on_cpu:
            _avoid_transposed_factors(graph.graph)
        for node in graph.graph.nodes:  # what the trace noted of its tensors, which the compiler works out again
            node.meta.pop("val", None)
        # One C++ file for the whole graph, kernels and calls: one run of the compiler, and no Python between kernels.
        # Precompiled headers and the trial compilation of vector instructions cost more than they save here.
        options = {
            "cpp_wrapper": True,
            "size_asserts": False,
            "cpp.vec_isa_ok": True,
            "cpp_cache_precompile_headers": False,
        }
        with torch.no_grad():
            return torch._inductor.compile(graph, example, options=options if on_cpu else {}), reached


def _avoid_transposed_factors(graph: torch.fx.Graph) -> None:
    """Aᵀ·Bᵀ as (B·A)ᵀ: MKL takes seven times as long for a batch of small products whose factors are both transposed.

    Second derivatives are full of them.
    """
    bmm, transpose = torch.ops.aten.bmm.default, torch.ops.aten.transpose.int
    for node in graph.find_nodes(op="call_function", target=bmm):
        if all(_is_transposed(factor.meta.get("val")) for factor in node.args):
            with graph.inserting_before(node):
                second, first = (graph.call_function(transpose, (factor, 1, 2)) for factor in node.args)
                product = graph.call_function(bmm, (first, second))
                node.replace_all_uses_with(graph.call_function(transpose, (product, 1, 2)))
            graph.erase_node(node)


def _is_transposed(matrices: Tensor | None) -> bool:
    if matrices is None:
        return False
    rows, columns = matrices.shape[1:]
    return rows > 1 and columns > 1 and matrices.stride(1) == 1 and matrices.stride(2) >= rows


@functools.cache
def compiler_missing() -> bool:
    """Whether there is no C++ compiler; says so, once, if there is none."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        warnings.warn(
            "compile=True needs a C++ compiler and none was found; going on without compiling. Install one "
            "(Debian: apt install g++) or name it in the environment variable CXX.",
            stacklevel=3,
        )
        return True
    return False

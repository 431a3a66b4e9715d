"""All private interfaces of PyTorch that the library uses.

With a version of PyTorch other than the one that ``CAN_COMPILE_DIRECTLY`` names, graphs are compiled through public
interfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import forward_ad
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode

OPERATOR = torch._ops.OpOverload
"""The class of an operation in a traced graph."""

without_dead_wrappers = unwrap_dead_wrappers
"""The arguments of an ``autograd.Function``, as its ``apply`` passes them on."""

without_function_modes = torch._C.DisableTorchFunction
"""A context in which no ``TorchFunctionMode`` is called."""

CAN_COMPILE_DIRECTLY = torch.__version__.startswith("2.13.")
"""Whether the internal functions of this version of PyTorch are known; others use public interfaces."""


def transforms() -> int:
    """The number of active transforms of ``torch.func``, such as ``vmap`` and ``grad``."""
    return len(retrieve_all_functorch_interpreters())


def transforming() -> bool:
    """Whether ``transforms()`` is not 0; faster than computing it."""
    return bool(torch._C._are_functorch_transforms_active())


def under_vmap() -> bool:
    """Whether a ``vmap`` is active, at any level."""
    return any(level.key() == TransformType.Vmap for level in retrieve_all_functorch_interpreters())


def mixing_modes() -> bool:
    """Whether ``torch.func`` is nesting forward-mode and reverse-mode derivatives."""
    return {TransformType.Jvp, TransformType.Grad} <= {level.key() for level in retrieve_all_functorch_interpreters()}


def in_forward_mode() -> bool:
    """Whether forward-mode derivatives are being computed."""
    return forward_ad._current_level >= 0


def keeps_through_hooks() -> bool:
    """Whether hooks on saved tensors are active, such as those of a checkpoint."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def is_innermost(mode: TorchFunctionMode) -> bool:
    """Whether a mode is the innermost active mode of this thread."""
    depth = torch._C._len_torch_function_stack()
    return depth > 0 and torch._C._get_function_stack_at(depth - 1) is mode


def traced() -> bool:
    """Whether the running code is being traced into a graph."""
    return get_proxy_mode() is not None


def dispatched() -> bool:
    """Whether a dispatch mode, such as a tracer, intercepts operations."""
    return _get_current_dispatch_mode() is not None


def compile_graph(graph: GraphModule, example: Sequence[Tensor], options: dict[str, Any]) -> Any:
    """Compile a traced graph with TorchInductor's public interface."""
    return torch._inductor.compile(graph, list(example), options=options)


@contextmanager
def tracing_context() -> Iterator[Any]:
    """A context in which one fake mode, which it yields, serves the tensors of all nodes."""
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with tracing(TracingContext(mode)):
        yield mode


def trace(function: Callable[..., Any], example: Sequence[Tensor], decomposed: bool = False) -> GraphModule:
    """Trace a function of tensors to a graph; ``decomposed`` uses the operations that TorchInductor compiles."""
    from torch.fx.experimental.proxy_tensor import make_fx

    if not decomposed:
        return make_fx(function)(*example)
    from torch._inductor.decomposition import select_decomp_table

    return make_fx(function, decomposition_table=select_decomp_table())(*example)


def compile_decomposed(graph: GraphModule, example: Sequence[Tensor], mode: Any, options: dict[str, Any]) -> Any:
    """Compile a decomposed graph with TorchInductor, without its second trace, which serves autograd."""
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner

    with config.patch(options):
        return compile_fx_inner(graph, [mode.from_tensor(t) for t in example], cpp_wrapper=True, is_inference=True)


def has_cpp_compiler() -> bool:
    """Whether TorchInductor finds a C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


def process_store() -> Any | None:
    """The key-value store that the processes of ``torch.distributed`` share; ``None`` if it cannot be had."""
    try:
        return torch.distributed.distributed_c10d._get_default_store()
    except (AttributeError, ValueError):
        return None

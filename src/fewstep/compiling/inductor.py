"""Compilation of a function of tensors by TorchInductor, on CPUs to one C++ file, with short compile times."""

from __future__ import annotations

import operator
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils._pytree import tree_leaves

from fewstep.adaptation.random_numbers import replayed
from fewstep.compiling.garbage import without_garbage_collection
from fewstep.compiling.graph_rewrites import avoid_transposed_factors, simplify
from fewstep.pytorch import (
    CAN_COMPILE_DIRECTLY,
    OPERATOR,
    compile_decomposed,
    compile_graph,
    trace,
    tracing_context,
)

# One C++ file for the whole graph, kernels and calls: one run of the compiler, and no Python between kernels.
# Precompiled headers and the trial compilation of vector instructions take longer than they save.
CPU_OPTIONS: dict[str, Any] = {
    "cpp_wrapper": True,
    "size_asserts": False,
    "cpp.vec_isa_ok": True,
    "cpp_cache_precompile_headers": False,
}
# The fused function is recorded as a CUDA graph by this library; random numbers are the same as without compilation.
GPU_OPTIONS: dict[str, Any] = {
    "triton.cudagraphs": False,
    "size_asserts": False,
    "shape_padding": False,
    "fallback_random": True,
}
SHORT_CUT = CAN_COMPILE_DIRECTLY
"""Whether graphs are passed to the compiler directly, with one trace."""

FEW_ELEMENTS = 2**16
# If no tensor has more elements, kernels are short, and -O3 spends most of its time on the calls between them. With -O1
# such a step takes 2% longer, a larger convolutional network a third. The text is inserted into the command line as is.
LIGHT_OPTIONS: dict[str, Any] = {"cpp.march": "native -O1", "cpp.max_horizontal_fusion_size": 2}


def compiled(function: Callable[..., list[Tensor]], example: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """Compile ``function``, including the derivatives in it, for arguments like ``example``."""
    on_cpu = example[0].device.type == "cpu"
    # Compilation makes millions of small objects; the garbage collector would take a tenth of the time.
    with without_garbage_collection(), torch.no_grad():
        if on_cpu and SHORT_CUT:
            return _compiled_directly(function, example)
        with replayed():
            graph = trace(function, example)
        return _compiled_publicly(graph, example, CPU_OPTIONS if on_cpu else GPU_OPTIONS)


def _compiled_publicly(graph: GraphModule, example: Sequence[Tensor], options: dict[str, Any]) -> Any:
    if options is CPU_OPTIONS:
        avoid_transposed_factors(graph.graph)
    for node in graph.graph.nodes:  # the compiler computes these again
        node.meta.pop("val", None)
    return compile_graph(graph, example, options)


def _compiled_directly(function: Callable[..., list[Tensor]], example: Sequence[Tensor]) -> Any:
    """Trace once, into the operations that TorchInductor compiles; its usual second trace serves autograd."""
    with replayed(), tracing_context() as mode:
        graph = trace(function, example, decomposed=True)
    if not _is_functional(graph.graph):
        return _compiled_publicly(graph, example, CPU_OPTIONS)
    options = {**CPU_OPTIONS, **(LIGHT_OPTIONS if _is_light(graph.graph) else {})}
    simplify(graph.graph)
    avoid_transposed_factors(graph.graph)
    outputs: Any = graph.graph.output_node().args[0]
    graph.graph.output_node().meta["user_visible_output_idxs"] = list(range(len(outputs)))
    run = compile_decomposed(graph, example, mode, options)
    return lambda *tensors: run(list(tensors))


def _is_functional(graph: torch.fx.Graph) -> bool:
    """Whether all operations are functions of the values of their inputs: none writes, draws or reads strides."""
    for node in graph.nodes:
        if node.op in ("placeholder", "output") or node.target is operator.getitem:
            continue
        if not isinstance(node.target, OPERATOR) or node.target._schema.is_mutable:
            return False
        if torch.Tag.nondeterministic_seeded in node.target.tags or "as_strided" in node.target.name():
            return False
    return True


def _is_light(graph: torch.fx.Graph) -> bool:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    noted = (tensor for node in graph.nodes for tensor in tree_leaves(node.meta.get("val")))
    return max(tensor.numel() for tensor in noted if isinstance(tensor, Tensor)) <= FEW_ELEMENTS

"""From a function of tensors to one C++ file, by TorchInductor, with as little waiting as it allows."""

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
# Precompiled headers and the trial compilation of vector instructions cost more than they save here.
CPU_OPTIONS: dict[str, Any] = {
    "cpp_wrapper": True,
    "size_asserts": False,
    "cpp.vec_isa_ok": True,
    "cpp_cache_precompile_headers": False,
}
# What is fused is recorded as a CUDA graph by us; random numbers are drawn as outside.
GPU_OPTIONS: dict[str, Any] = {
    "triton.cudagraphs": False,
    "size_asserts": False,
    "shape_padding": False,
    "fallback_random": True,
}
SHORT_CUT = CAN_COMPILE_DIRECTLY
"""Whether graphs take the short way to the compiler."""

FEW_ELEMENTS = 2**16
# Where no tensor has more, the kernels are short, and -O3 spends most of its time on the calls between them. -O1 costs
# such a step 2%, a larger convolutional network a third. The text goes into the command line as it stands.
LIGHT_OPTIONS: dict[str, Any] = {"cpp.march": "native -O1", "cpp.max_horizontal_fusion_size": 2}


def compiled(function: Callable[..., list[Tensor]], example: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """``function``, derivatives and all, as one graph, compiled for tensors like those of ``example``."""
    on_cpu = example[0].device.type == "cpu"
    # Compiling makes millions of small objects; the collector looks through them for a tenth of the time.
    with without_garbage_collection(), torch.no_grad():
        if on_cpu and SHORT_CUT:
            return _compiled_directly(function, example)
        with replayed():
            graph = trace(function, example)
        return _compiled_publicly(graph, example, CPU_OPTIONS if on_cpu else GPU_OPTIONS)


def _compiled_publicly(graph: GraphModule, example: Sequence[Tensor], options: dict[str, Any]) -> Any:
    if options is CPU_OPTIONS:
        avoid_transposed_factors(graph.graph)
    for node in graph.graph.nodes:  # what the trace noted of its tensors, which the compiler works out again
        node.meta.pop("val", None)
    return compile_graph(graph, example, options)


def _compiled_directly(function: Callable[..., list[Tensor]], example: Sequence[Tensor]) -> Any:
    """Traced once, into the operations that Inductor compiles; its usual second trace is for autograd's sake."""
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
    """Whether all operations are functions of their inputs' numbers: none writes, draws, or looks at strides."""
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

"""Rewrites of a traced graph that keep its results: fewer nodes to compile, and faster products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

aten = torch.ops.aten
ALIASES = (aten.alias.default, aten.detach.default)
VIEWS = (aten.view.default, aten.permute.default, aten.expand.default)


def simplify(graph: Graph) -> None:
    """Remove operations without effect, and then those whose results are not used.

    Second derivatives contain many of them. The operations must be functions of the values of their inputs, and the
    nodes must know their tensors (``meta["val"]``, from ``make_fx``). Returned tensors keep separate memory.
    """
    returned = set(graph.output_node().all_input_nodes)
    for node in reversed(graph.nodes):
        if node in returned and node.target in (*ALIASES, *VIEWS):
            returned.add(node.args[0])
    for node in graph.nodes:
        _join_views(node)
        if node not in returned and (same := _without_effect(node) or _without_neutral(node)) is not None:
            node.replace_all_uses_with(same)
    graph.eliminate_dead_code()


def avoid_transposed_factors(graph: Graph) -> None:
    """Replace Aᵀ·Bᵀ by (B·A)ᵀ, of which second derivatives contain many.

    MKL takes seven times as long for a batch of small products if both factors are transposed.
    """
    bmm, permute = aten.bmm.default, aten.permute.default
    for node in graph.find_nodes(op="call_function", target=bmm):
        if all(_is_transposed(factor.meta.get("val")) for factor in node.args):
            with graph.inserting_before(node):
                second, first = (graph.call_function(permute, (factor, [0, 2, 1])) for factor in node.args)
                product = graph.call_function(bmm, (first, second))
                node.replace_all_uses_with(graph.call_function(permute, (product, [0, 2, 1])))
            graph.erase_node(node)


def _join_views(node: Any) -> None:
    """Replace a view of a view by one view, and a permutation of a permutation by one permutation."""
    if node.target not in (aten.view.default, aten.permute.default):
        return
    inner = node.args[0]
    if inner.target is node.target is aten.view.default:
        node.update_arg(0, inner.args[0])
    elif inner.target is node.target:
        node.args = (inner.args[0], [inner.args[1][axis] for axis in node.args[1]])


def _without_effect(node: Node) -> Any:
    """x if the node is an alias of x, a view with the same shape and strides, x·1 or x¹; else ``None``."""
    if node.target in ALIASES:
        return node.args[0]
    by_one = node.target in (aten.mul.Scalar, aten.pow.Tensor_Scalar) and node.args[1] == 1
    return node.args[0] if (by_one or node.target in VIEWS) and _same(node, node.args[0]) else None


def _without_neutral(node: Node) -> Any:
    """x if the node is x + 0 or x·1 with a tensor of zeros or ones; else ``None``."""
    if node.target not in (aten.add.Tensor, aten.mul.Tensor) or node.kwargs:
        return None
    neutral = 0 if node.target is aten.add.Tensor else 1
    return next((x for x, other in (node.args, node.args[::-1]) if _filling(other) == neutral and _same(node, x)), None)


def _filling(node: Any) -> Any:
    """The number that all entries of a tensor have; ``None`` if unknown."""
    while isinstance(node, Node) and node.target in (*VIEWS, aten.clone.default):
        node = node.args[0]
    if isinstance(node, Node) and node.target is aten.full.default:
        return node.args[1]
    return 1 if isinstance(node, Node) and node.target is aten.pow.Tensor_Scalar and node.args[1] == 0 else None


def _same(node: Node, other: Any) -> bool:
    """Whether two tensors have the same dtype, shape and strides."""
    if not isinstance(other, Node):
        return False
    one, two = node.meta["val"], other.meta["val"]
    return one.dtype == two.dtype and one.shape == two.shape and one.stride() == two.stride()


def _is_transposed(matrices: Tensor | None) -> bool:
    if matrices is None:
        return False
    rows, columns = matrices.shape[1:]
    return rows > 1 and columns > 1 and matrices.stride(1) == 1 and matrices.stride(2) >= rows

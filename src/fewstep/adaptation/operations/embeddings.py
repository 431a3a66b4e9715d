"""Embeddings and embedding bags with second derivatives, and the same gradient in a loop and under vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.pytorch import under_vmap


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    _refuse_max_norm("Embedding", max_norm)
    if scale_grad_by_freq and under_vmap():
        raise RuntimeError("torch.nn.Embedding(scale_grad_by_freq=True) has a wrong second derivative under vmap.")
    if padding_idx is None or not under_vmap():
        return functional.embedding(input, weight, padding_idx, None, norm_type, scale_grad_by_freq, sparse)
    # vmap ignores that padding gets no gradient.
    found = functional.embedding(input, weight, None, None, norm_type, scale_grad_by_freq, sparse)
    padding = (input == padding_idx % weight.shape[0]).unsqueeze(-1)
    return torch.where(padding, found.detach(), found)


def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Bags of equal size as an embedding and a reduction; other bags use PyTorch's, without second derivatives."""
    _refuse_max_norm("EmbeddingBag", max_norm)
    if input.ndim != 2 or padding_idx is not None or scale_grad_by_freq or sparse or 0 in input.shape:
        return functional.embedding_bag(
            input, weight, offsets, None, norm_type, scale_grad_by_freq, mode, sparse, per_sample_weights,
            include_last_offset, padding_idx,
        )  # fmt: skip
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f'mode must be "sum", "mean" or "max"; got {mode!r}.')
    found = functional.embedding(input, weight)
    if mode == "max":
        return found.max(1).values
    if per_sample_weights is not None:
        if mode != "sum":
            raise NotImplementedError(f'per_sample_weights requires mode="sum"; got mode={mode!r}.')
        found = found * per_sample_weights.unsqueeze(-1)
    return found.sum(1) if mode == "sum" else found.mean(1)


def _refuse_max_norm(layer: str, max_norm: float | None) -> None:
    if max_norm is not None:
        raise ValueError(
            f"torch.nn.{layer} with max_norm={max_norm} modifies its parameters in forward, which has no derivative "
            "and would affect other tasks. Leave max_norm out, and normalise the layer's output, "
            "for example with torch.nn.functional.normalize."
        )


EMBEDDINGS: dict[Any, Callable[..., Any]] = {
    functional.embedding: _embedding,
    functional.embedding_bag: _embedding_bag,
}
"""The replacement for each of PyTorch's embeddings."""

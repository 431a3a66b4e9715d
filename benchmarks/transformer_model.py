"""The decoder-only transformer of ``transformer.py``, as functions of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

Params = dict[str, Tensor]


def norm(x: Tensor, scale: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * scale


def rotated(x: Tensor) -> Tensor:
    """Rotary positions: ``[batch, heads, sequence, size]``."""
    half = x.shape[-1] // 2
    frequencies = 10_000 ** -(torch.arange(half, device=x.device, dtype=x.dtype) / half)
    angles = torch.arange(x.shape[-2], device=x.device, dtype=x.dtype)[:, None] * frequencies
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def block(x: Tensor, norm1: Tensor, qkv: Tensor, out: Tensor, norm2: Tensor, up: Tensor, down: Tensor) -> Tensor:
    batch, length, width = x.shape
    size = 32 if width < 512 else 64
    q, k, v = (norm(x, norm1) @ qkv.T).view(batch, length, 3, width // size, size).permute(2, 0, 3, 1, 4)
    scores = rotated(q) @ rotated(k).mT * size**-0.5
    causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
    attended = torch.where(causal, scores, torch.finfo(x.dtype).min).softmax(-1) @ v
    x = x + attended.transpose(1, 2).reshape(x.shape) @ out.T
    return x + functional.gelu(norm(x, norm2) @ up.T) @ down.T


def loss_of(blocks: int, checkpoints: bool) -> Callable[[Params, Any], Tensor]:
    """The weighted mean over examples of the next token's cross-entropy."""

    def loss(params: Params, batch: Any) -> Tensor:
        tokens, weights = batch
        x = params["embedding"][tokens[:, :-1]]
        for i in range(blocks):
            own = [params[f"{i}.{name}"] for name in ("norm1", "qkv", "out", "norm2", "up", "down")]
            x = checkpoint(block, x, *own, use_reentrant=False) if checkpoints else block(x, *own)
        logits = norm(x, params["norm"]) @ params["embedding"].T
        each = functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").mean(1)
        return (weights * each).mean()

    return loss

"""The meta-gradient of ``transformer.py`` in JAX: the same model, inner loop and meta-parameters.

``jax.grad`` through ``lax.scan`` over the inner steps, all under one ``jit``: plain; with the step rematerialised
(``jax.checkpoint``), which keeps the parameters of each step; and with each block rematerialised as well. Memory is
XLA's own figure for the compiled program: what it allocates beside arguments and results.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs the GPU's memory too

import jax
import jax.numpy as jnp
import torch
from jax import lax
from torch import Tensor

Params = dict[str, jax.Array]
Batch = tuple[jax.Array, jax.Array]


def norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6) * scale


def rotated(x: jax.Array) -> jax.Array:
    """Rotary positions: ``[batch, heads, sequence, size]``."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[-2], dtype=x.dtype)[:, None] * 10_000 ** -(jnp.arange(half, dtype=x.dtype) / half)
    first, second = jnp.split(x, 2, -1)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], -1)


def block(x: jax.Array, own: list[jax.Array]) -> jax.Array:
    norm1, qkv, out, norm2, up, down = own
    batch, length, width = x.shape
    size = 32 if width < 512 else 64
    q, k, v = (norm(x, norm1) @ qkv.T).reshape(batch, length, 3, width // size, size).transpose(2, 0, 3, 1, 4)
    scores = rotated(q) @ rotated(k).mT * size**-0.5
    causal = jnp.tril(jnp.ones((length, length), bool))
    attended = jax.nn.softmax(jnp.where(causal, scores, jnp.finfo(x.dtype).min)) @ v
    x = x + attended.transpose(0, 2, 1, 3).reshape(x.shape) @ out.T
    return x + jax.nn.gelu(norm(x, norm2) @ up.T, approximate=False) @ down.T


def loss(params: Params, batch: Batch, blocks: int, remat: bool) -> jax.Array:
    """The weighted mean over examples of the next token's cross-entropy."""
    tokens, weights = batch
    x = params["embedding"][tokens[:, :-1]]
    for i in range(blocks):
        own = [params[f"{i}.{name}"] for name in ("norm1", "qkv", "out", "norm2", "up", "down")]
        x = (jax.checkpoint(block) if remat else block)(x, own)
    outputs = jax.nn.log_softmax(norm(x, params["norm"]) @ params["embedding"].T)
    each = -jnp.take_along_axis(outputs, tokens[:, 1:, None], 2).mean((1, 2))
    return (weights * each).mean()


def adam(moments: Any, gradients: Params, step: jax.Array) -> tuple[Params, Any]:
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradients)
    second = jax.tree.map(lambda m, g: 0.999 * m + 0.001 * g**2, moments[1], gradients)
    scales = 1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)
    directions = jax.tree.map(lambda m, v: m / scales[0] / jnp.sqrt(v / scales[1] + 1e-12), first, second)
    return directions, (first, second)


def meta_loss(
    learned: tuple[Params, jax.Array], params: Params, tokens: jax.Array, blocks: int, steps: int, optimizer: str,
    remat: tuple[bool, bool],
) -> jax.Array:  # fmt: skip
    """The query loss after the inner steps, of the learned rates and the weights of the support examples."""
    rates, weights = learned
    of = partial(loss, blocks=blocks, remat=remat[1])

    def step(carry: Any, index: jax.Array) -> tuple[Any, None]:
        params, moments = carry
        directions = jax.grad(of)(params, (tokens[0], weights))
        if optimizer == "adam":
            directions, moments = adam(moments, directions, index)
        return ({name: params[name] - rates[name] * directions[name] for name in params}, moments), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    moments = (zeros, zeros) if optimizer == "adam" else None
    indices = jnp.arange(steps, dtype=weights.dtype)
    (adapted, _), _ = lax.scan(jax.checkpoint(step) if remat[0] else step, (params, moments), indices)
    return of(adapted, (tokens[1], jnp.ones_like(weights)))


def compiled(
    remat: tuple[bool, bool],
    params: dict[str, Tensor],
    tokens: Tensor,
    rate: float,
    blocks: int,
    steps: int,
    optimizer: str,
) -> tuple[Callable[[], tuple[Params, jax.Array]], float, float]:
    """The meta-gradient, which waits for its result; MB of the compiled program; seconds to compile it.

    ``remat``: whether steps and blocks are rematerialised.
    """
    if params["norm"].dtype == torch.float64:
        jax.config.update("jax_enable_x64", True)
    device = jax.devices("cpu" if tokens.device.type == "cpu" else "cuda")[0]

    def moved(values: Tensor) -> jax.Array:
        return jax.device_put(values.detach().cpu().numpy(), device)

    start = {name: moved(value) for name, value in params.items()}
    of = partial(meta_loss, blocks=blocks, steps=steps, optimizer=optimizer, remat=remat)
    weights = jnp.ones(tokens.shape[1], start["norm"].dtype, device=device)
    learned = {name: jnp.asarray(rate, weights.dtype, device=device) for name in start}, weights
    arguments = learned, start, moved(tokens)
    began = time.perf_counter()
    program = jax.jit(jax.grad(of)).lower(*arguments).compile()
    seconds = time.perf_counter() - began
    analysis = program.memory_analysis()

    def call() -> tuple[Params, jax.Array]:
        return jax.block_until_ready(program(*arguments))

    return call, analysis.temp_size_in_bytes / 2**20, seconds

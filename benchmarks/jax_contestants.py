"""The meta-gradient of the paper's image benchmarks in JAX, a contestant of ``classification.py``.

Everything is under one ``jit``: tasks by ``vmap``, inner steps unrolled, images with their channels last, batch
statistics with a shift and no scale. ``vmap`` makes grouped convolutions of convolutions whose weights differ from task
to task. These take about ten times as long on a CPU as products with the images' patches, which is why products are the
default. Run by itself, this file times what a user of JAX can choose between, and prints how long the first call of
each takes, most of which is compiling.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs the GPU's memory too

import jax
import jax.numpy as jnp
import torch
from jax import lax
from torch import Tensor

import fewstep as fs

Weights = list[jax.Array]
"""A kernel ``[height, width, in, out]`` and a shift for each block, the head's weight ``[features, ways]`` and bias."""


@dataclass(frozen=True)
class Choices:
    """How the meta-gradient is written; the defaults are the fastest exact way on a CPU."""

    first_order: bool = False
    tasks: str = "vmap"
    """``vmap``, or ``map``: one task after the other."""
    steps: str = "unrolled"
    """``unrolled`` in Python, or ``scan``."""
    convolution: str = "patches"
    """``patches``: a product of matrices, or ``direct``, which ``vmap`` makes a grouped convolution."""
    precision: str = "highest"
    """``highest`` is full float32; ``default`` is JAX's own, which on a GPU rounds factors to TF32."""


@dataclass(frozen=True)
class Network:
    """What the weights do not tell of a :class:`fewstep.models.Conv4` with batch statistics, shifts and no scales."""

    pool: bool
    spatial_mean: bool
    eps: float
    map_size: int
    """Height and width of the last block's maps, where they are flattened."""

    @classmethod
    def of(cls, network: fs.models.Conv4) -> Network:
        block = network.body[0]
        size = 1 if network.spatial_mean else round((network.features / len(network.body[-1].weight)) ** 0.5)
        return cls(block.pool, network.spatial_mean, block.norm.eps, size)

    def weights_from(self, parameters: list[Tensor], device: jax.Device) -> Weights:
        """The network's parameters, in their order, for :func:`logits`."""
        *body, head, bias = (p.detach().cpu() for p in parameters)
        kernels = [p.permute(2, 3, 1, 0) if p.ndim == 4 else p for p in body]
        by_position = head.unflatten(1, (-1, self.map_size, self.map_size)).permute(2, 3, 1, 0).flatten(0, 2)
        return [on_device(p, device) for p in (*kernels, by_position, bias)]

    def tensors_from(self, gradients: Weights) -> list[Tensor]:
        """The other way round, for gradients."""
        *body, head, bias = (torch.tensor(jax.device_get(g)) for g in gradients)
        kernels = [g.permute(3, 2, 0, 1) if g.ndim == 4 else g for g in body]
        by_channel = head.unflatten(0, (self.map_size, self.map_size, -1)).permute(3, 2, 0, 1).flatten(1)
        return [*kernels, by_channel, bias]


def on_device(values: Tensor, device: jax.Device) -> jax.Array:
    return jax.device_put(values.detach().cpu().contiguous().numpy(), device)


def jax_device(device: str) -> jax.Device:
    """JAX's device of that name; a JAX that has no such device counts as not installed."""
    try:
        return jax.devices(device)[0]
    except RuntimeError as error:
        raise ModuleNotFoundError(f"JAX finds no {device} device", name=f"JAX for {device}") from error


def direct(x: jax.Array, kernel: jax.Array, stride: int, precision: str) -> jax.Array:
    """A 3×3 convolution with a padding of 1."""
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=layout, precision=precision
    )


def by_patches(x: jax.Array, kernel: jax.Array, stride: int, precision: str) -> jax.Array:
    """The same as one product with the nine shifted images beside each other."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = [x[:, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)]
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return jnp.matmul(jnp.concatenate(patches, -1), matrix, precision=precision)


CONVOLUTIONS: dict[str, Callable[[jax.Array, jax.Array, int, str], jax.Array]] = {
    "direct": direct,
    "patches": by_patches,
}


def max_pool(x: jax.Array) -> jax.Array:
    """Over 2×2 squares; an odd last row or column is left out. Faster to differentiate than ``lax.reduce_window``."""
    images, height, width, channels = x.shape
    squares = x[:, : height // 2 * 2, : width // 2 * 2].reshape(images, height // 2, 2, width // 2, 2, channels)
    return squares.max((2, 4))


def logits(weights: Weights, images: jax.Array, network: Network, choices: Choices) -> jax.Array:
    """The network's outputs for images ``[images, height, width, channels]``."""
    *body, head, bias = weights
    x = images
    for kernel, shift in zip(body[::2], body[1::2], strict=True):
        x = CONVOLUTIONS[choices.convolution](x, kernel, 1 if network.pool else 2, choices.precision)
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        x = jax.nn.relu((x - mean) * lax.rsqrt(variance + network.eps) + shift)
        x = max_pool(x) if network.pool else x
    features = x.mean((1, 2)) if network.spatial_mean else x.reshape(len(x), -1)
    return jnp.matmul(features, head, precision=choices.precision) + bias


def meta_loss(
    weights: Weights, tasks: tuple[jax.Array, ...], network: Network, inner_lr: float, steps: int, choices: Choices
) -> jax.Array:
    """The mean over tasks of the query loss after the inner steps."""

    def loss(weights: Weights, images: jax.Array, labels: jax.Array) -> jax.Array:
        outputs = jax.nn.log_softmax(logits(weights, images, network, choices))
        return -jnp.take_along_axis(outputs, labels[:, None], 1).mean()

    def task_loss(task: tuple[jax.Array, ...]) -> jax.Array:
        support_x, support_y, query_x, query_y = task

        def step(weights: Weights, _: None = None) -> tuple[Weights, None]:
            gradients = jax.grad(loss)(weights, support_x, support_y)
            if choices.first_order:
                gradients = lax.stop_gradient(gradients)
            return [w - inner_lr * g for w, g in zip(weights, gradients, strict=True)], None

        adapted = weights
        if choices.steps == "scan":
            adapted, _ = lax.scan(step, adapted, length=steps)
        else:
            for _ in range(steps):
                adapted, _ = step(adapted)
        return loss(adapted, query_x, query_y)

    losses = jax.vmap(task_loss)(tasks) if choices.tasks == "vmap" else lax.map(task_loss, tasks)
    return losses.mean()


class JaxMetaGradient:
    """The compiled meta-gradient of some tasks, which are copied to the device once, here.

    A call waits for the result and leaves it on the device; :meth:`tensors` gives it as PyTorch's.

    Args:
        network: with the parameters to begin with, and the paper's norms.
        tasks: their device is JAX's too.
        inner_lr: of the inner SGD.
        steps: inner steps.
        choices: how it is written.

    Raises:
        ModuleNotFoundError: JAX has no such device.
    """

    def __init__(
        self, network: fs.models.Conv4, tasks: fs.tasks.Task, inner_lr: float, steps: int, choices: Choices
    ) -> None:
        device = jax_device(tasks.support.x.device.type)
        if tasks.support.x.dtype == torch.float64:
            jax.config.update("jax_enable_x64", True)
        self.network = Network.of(network)
        self.weights = self.network.weights_from(list(network.parameters()), device)
        batches = (tasks.support, tasks.query)
        pairs = [(batch.x.movedim(-3, -1), batch.y.to(torch.int32)) for batch in batches]
        self.tasks = tuple(on_device(values, device) for pair in pairs for values in pair)

        def loss(weights: Weights, tasks: tuple[jax.Array, ...]) -> jax.Array:
            return meta_loss(weights, tasks, self.network, inner_lr, steps, choices)

        self.loss_and_gradient = jax.jit(jax.value_and_grad(loss))

    def __call__(self) -> Weights:
        return jax.block_until_ready(self.loss_and_gradient(self.weights, self.tasks))[1]

    def tensors(self) -> list[Tensor]:
        """The meta-gradient in the order and shapes of the network's parameters."""
        return self.network.tensors_from(self())


VARIANTS = {
    f"{convolution}{name}": Choices(convolution=convolution, **others)
    for convolution in ("patches", "direct")
    for name, others in {
        "": {},
        ", scan": {"steps": "scan"},
        ", map": {"tasks": "map"},
        ", map and scan": {"tasks": "map", "steps": "scan"},
        ", first order": {"first_order": True},
        ", default precision": {"precision": "default"},
    }.items()
}
"""By ``vmap`` and unrolled, but for what the name says."""


def main() -> None:
    from classification_settings import SETTINGS
    from measuring import console, in_turn, print_header, print_times

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each variant has its turn (default 5)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--setting", default="", metavar="TEXT", help="only settings whose title has this in it")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args()

    print_header(f"Meta-gradients in JAX {jax.__version__}", options.device)
    results: dict[str, Any] = {}
    for title, setting in SETTINGS.items():
        if options.setting not in title:
            continue
        torch.manual_seed(0)
        tasks = setting.sample(setting.tasks, options.device)
        network = setting.network(setting.ways).to(options.device)
        made, compiling = {}, {}
        for name in options.variants:
            made[name] = JaxMetaGradient(network, tasks, setting.inner_lr, setting.steps, VARIANTS[name])
            start = time.perf_counter()
            made[name]()
            compiling[name] = time.perf_counter() - start
            console.print(f"{name}: first call {compiling[name]:.1f} s")
        times = in_turn(made, options.rounds, seconds=0.3)
        print_times(title, times, options.variants[0])
        results[title] = {"times": times, "first call": compiling}
        if options.json:
            options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

"""Meta-gradients of few-shot classification, side by side: the autograd loop, higher, JAX, and this library.

The networks and sizes of the MAML paper: Omniglot 5-way 1-shot (32 tasks, 1 inner step) and 20-way 1-shot (16 tasks,
5 steps), miniImageNet 5-way 1-shot (4 tasks, 5 steps), exact second order. Images are random: the time does not depend
on what they show. All contestants are checked to give the same meta-gradient first. Beside the times stands the
arithmetic limit: the floating-point operations that PyTorch counts in the autograd loop, at the rate of a large matrix
product. Then ANIL against MAML, and how long sampling takes. With ``--device cuda`` all of it on a GPU, where our
meta-step is recorded as a CUDA graph too.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from classification_settings import SETTINGS, Setting
from measuring import console, in_turn, installed, parse_on_allocator, print_header, print_times, speedup
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import fewstep as fs

MetaGradient = Callable[[], list[Any]]
"""Computes the meta-gradient, in the order of the network's parameters."""


class PlainConv4(nn.Module):
    """The same network with the same weights, put together from PyTorch's own layers."""

    def __init__(self, network: fs.models.Conv4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in network.body:
            filters, channels = block.weight.shape[:2]
            convolution = nn.Conv2d(channels, filters, 3, stride=1 if block.pool else 2, padding=1, bias=False)
            norm = nn.BatchNorm2d(filters, eps=block.norm.eps, track_running_stats=False)
            norm.weight.requires_grad_(False)  # the paper's has a shift and no scale
            with torch.no_grad():
                convolution.weight.copy_(block.weight)
            layers += [convolution, norm, nn.ReLU(), *([nn.MaxPool2d(2)] if block.pool else [])]
        pooled = [nn.AdaptiveAvgPool2d(1)] if network.spatial_mean else []
        head = nn.Linear(network.features, network.head.out_features)
        head.load_state_dict(network.head.state_dict())
        self.layers = nn.Sequential(*layers, *pooled, nn.Flatten(), head).to(network.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def autograd_loop(network: fs.models.Conv4, tasks: fs.tasks.Task, setting: Setting) -> MetaGradient:
    """The usual way: ``create_graph=True``, one task after the other."""
    model = PlainConv4(network)
    params = {name: value for name, value in model.named_parameters() if value.requires_grad}

    def loss(weights: dict[str, Tensor], batch: fs.tasks.Batch) -> Tensor:
        return functional.cross_entropy(functional_call(model, weights, (batch.x,)), batch.y)

    def meta_gradient() -> list[Tensor]:
        model.zero_grad()
        for i in range(len(tasks)):
            task, weights = tasks[i], params
            for _ in range(setting.steps):
                gradients = torch.autograd.grad(loss(weights, task.support), list(weights.values()), create_graph=True)
                weights = {n: w - setting.inner_lr * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
            (loss(weights, task.query) / len(tasks)).backward()
        return [value.grad for value in params.values() if value.grad is not None]

    return meta_gradient


def with_higher(network: fs.models.Conv4, tasks: fs.tasks.Task, setting: Setting) -> MetaGradient:
    """As in higher's own examples: a differentiable optimiser for each task, ``backward`` task by task."""
    import higher

    model = PlainConv4(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=setting.inner_lr)

    def meta_gradient() -> list[Tensor]:
        model.zero_grad()
        for i in range(len(tasks)):
            task = tasks[i]
            with higher.innerloop_ctx(model, optimizer, copy_initial_weights=False) as (adapted, inner):
                for _ in range(setting.steps):
                    inner.step(functional.cross_entropy(adapted(task.support.x), task.support.y))
                (functional.cross_entropy(adapted(task.query.x), task.query.y) / len(tasks)).backward()
        return [p.grad for p in model.parameters() if p.grad is not None and p.requires_grad]

    return meta_gradient


def with_fewstep(network: fs.models.Conv4, tasks: fs.tasks.Task, setting: Setting, **choices: Any) -> MetaGradient:
    """As a user of this library would write it."""
    learner = fs.maml(network, fs.cross_entropy, setting.inner_lr, setting.steps, **choices)

    def meta_gradient() -> list[Tensor]:
        for parameter in learner.parameters():
            parameter.grad = None
        learner.meta_gradient(tasks)
        return [p.grad for p in learner.parameters() if p.grad is not None]

    return meta_gradient


def with_jax(network: fs.models.Conv4, tasks: fs.tasks.Task, setting: Setting, **choices: Any) -> MetaGradient:
    """As ``jax_contestants.py`` says; the call returns JAX's arrays."""
    from jax_contestants import Choices, JaxMetaGradient

    return JaxMetaGradient(network, tasks, setting.inner_lr, setting.steps, Choices(**choices))


def tensors_of(meta_gradient: MetaGradient) -> list[Tensor]:
    """The meta-gradient as PyTorch's tensors, on the CPU."""
    found = meta_gradient.tensors() if hasattr(meta_gradient, "tensors") else meta_gradient()
    return [gradient.detach().cpu() for gradient in found]


def contestants(setting: Setting, tasks: fs.tasks.Task) -> dict[str, MetaGradient]:
    """All whose library is installed, on the same weights."""
    torch.manual_seed(0)
    network = setting.network(setting.ways).to(tasks.support.x)
    makers: dict[str, Callable[[], MetaGradient]] = {
        "higher": lambda: with_higher(network, tasks, setting),
        "autograd loop": lambda: autograd_loop(network, tasks, setting),
        "fewstep": lambda: with_fewstep(network, tasks, setting),
        "fewstep, first order": lambda: with_fewstep(network, tasks, setting, adjoint=fs.FirstOrder()),
        "JAX, jit and vmap": lambda: with_jax(network, tasks, setting),
        "JAX, first order": lambda: with_jax(network, tasks, setting, first_order=True),
    }
    if tasks.support.x.is_cuda:
        makers["JAX, grouped convolutions"] = lambda: with_jax(network, tasks, setting, convolution="direct")
        makers["fewstep, recorded"] = lambda: with_fewstep(network, tasks, setting, compile=True)
    return installed(makers)


def check_that_all_agree(setting: Setting, device: str) -> float:
    """The largest relative difference on two tasks in float64; fails if it is not rounding.

    From the autograd loop, and from our own gradient of first order for the others of first order.
    """
    competitors = contestants(setting, setting.sample(2, device, torch.float64))
    exact, first_order = (tensors_of(competitors[name]) for name in ("autograd loop", "fewstep, first order"))
    largest = 0.0
    for name, meta_gradient in competitors.items():
        expected = first_order if name.endswith("first order") else exact
        scale = max(gradient.abs().max().item() for gradient in expected)
        pairs = zip(tensors_of(meta_gradient), expected, strict=True)
        difference = max((mine - theirs).abs().max().item() for mine, theirs in pairs) / scale
        if difference > 1e-7:
            raise AssertionError(f"{name} differs from what it should be by {difference:.1e} of the gradient.")
        largest = max(largest, difference)
    return largest


def operations(setting: Setting) -> float:
    """Floating-point operations of the convolutions and products of one meta-gradient, all tasks together."""
    torch.manual_seed(0)
    meta_gradient = autograd_loop(setting.network(setting.ways), setting.sample(1, "cpu"), setting)
    with FlopCounterMode(display=False) as counter:
        meta_gradient()
    return float(counter.get_total_flops() * setting.tasks)


def product_rate(rounds: int, size: int, device: str) -> float:
    """Floating-point operations per second of a product of two square matrices, the fastest of some rounds."""
    a = torch.rand(size, size, device=device)
    times = in_turn({"product": lambda: a @ a}, rounds, seconds=0.1)
    return 2 * size**3 / min(times["product"])


def anil_against_maml(shots: int, device: str) -> dict[str, Callable[[], object]]:
    """Training (4 tasks, 5 steps, 15 queries) and adaptation at test (10 steps) on miniImageNet's network."""
    calls: dict[str, Callable[[], object]] = {}
    labels = torch.arange(5).repeat_interleave(shots).expand(4, -1)
    support = fs.tasks.Batch(torch.rand(*labels.shape, 3, 84, 84), labels)
    query = SETTINGS["miniImageNet, 5-way 1-shot, 4 tasks, 5 steps"].sample(4, device).query
    tasks = fs.tasks.Task(support.to(device), query)
    torch.manual_seed(0)
    network = fs.models.Conv4.mini_imagenet(5, norm="batch").to(device)
    options = {"compile": device == "cuda"}
    learners = {
        "MAML": fs.maml(network, fs.cross_entropy, 0.05, 5, **options),
        "ANIL": fs.anil(network, fs.cross_entropy, 0.05, 5, head="head.*", **options),
    }
    for name, learner in learners.items():
        learner.meta_gradient(tasks)
        calls[f"{name}, training"] = partial(learner.meta_gradient, tasks)
        calls[f"{name}, adaptation"] = partial(learner.adapt, tasks[0].support, 10)
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each contestant has its turn (default 7)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's, all cores)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parse_on_allocator(parser)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if options.threads:
        torch.set_num_threads(options.threads)
        os.environ["NPROC"] = str(options.threads)  # JAX's

    print_header("Meta-gradients of few-shot classification", options.device)
    results: dict[str, Any] = {}
    size = 1024 if options.device == "cpu" else 8192
    rate = results["operations per second"] = product_rate(options.rounds, size, options.device)
    console.print(f"A product of two {size} × {size} matrices: {rate / 1e9:,.0f} GFLOP/s.")
    for title, setting in SETTINGS.items():
        difference = check_that_all_agree(setting, options.device)
        console.print(f"\nAll agree to {difference:.0e}, in float64: exact ones, and those of first order.")
        competitors = contestants(setting, setting.sample(setting.tasks, options.device))
        times = in_turn(competitors, options.rounds, seconds=0.3)
        print_times(title, times, next(iter(competitors)))
        needed = operations(setting)
        ours = min(times.get("fewstep, recorded", times["fewstep"]))
        console.print(
            f"Arithmetic limit: {needed / 1e9:.1f} GFLOP, {needed / rate * 1e3:.3g} ms; "
            f"fewstep's fastest is {ours * rate / needed:.1f} times that."
        )
        results[title] = {"times": times, "operations": needed}

    for shots in (1, 5):
        title = f"miniImageNet, 5-way {shots}-shot: ANIL against MAML"
        times = results[title] = in_turn(anil_against_maml(shots, options.device), options.rounds, seconds=0.3)
        console.print()
        print_times(title, times, "MAML, training")
        training, adaptation = (speedup(times, f"ANIL, {what}", f"MAML, {what}") for what in ("training", "adaptation"))
        console.print(f"ANIL is {training:.1f} times as fast in training and {adaptation:.1f} times in adaptation.")

    setting = SETTINGS["Omniglot, 5-way 1-shot, 32 tasks, 1 step"]
    episodes = fs.tasks.Episodes(fs.datasets.glyphs("train"), ways=5, shots=1, queries=1, rotations=True)
    episodes = episodes.to(options.device)
    network = setting.network(5).to(options.device)
    step = with_fewstep(network, episodes.sample(32), setting, compile=options.device == "cuda")
    times = in_turn({"meta-step": step, "sampling": lambda: episodes.sample(32)}, options.rounds, seconds=0.3)
    share = results["sampling"] = speedup(times, "meta-step", "sampling")
    console.print(f"\nSampling the 32 tasks takes {share:.1%} of their meta-gradient's time.")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

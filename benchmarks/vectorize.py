"""When all tasks at once (vmap) beats a loop over tasks, without compiling: MAML with one inner step.

For networks from the sinusoid's to the paper's for 84×84 images, beside the bytes that the support loss of one task
keeps for its backward pass: what ``vectorize="auto"`` compares with ``fewstep.learner.VMAP_LIMIT``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from measuring import console, in_turn, parse_on_allocator, print_header, speedup, use_one_core
from rich.table import Table
from torch import nn

import fewstep as fs
from fewstep.learner import VMAP_LIMIT
from fewstep.learner.checks import check_task
from fewstep.learner.functional_loss import FunctionalLoss

Case = Callable[[], tuple[nn.Module, Callable[..., torch.Tensor], fs.tasks.Task]]
"""Makes a model, its loss and a meta-batch."""


def perceptron(width: int, shots: int = 10, tasks: int = 16) -> Case:
    def case() -> tuple[nn.Module, Callable[..., torch.Tensor], fs.tasks.Task]:
        sinusoids = fs.tasks.Sinusoids(shots=shots, queries=shots)
        return fs.models.MLP(1, [width, width], 1), fs.mse, sinusoids.sample(tasks)

    return case


def convolutional(size: int, filters: int, shots: int = 1, tasks: int = 16) -> Case:
    """Four blocks; images of 28 pixels are halved by strides (Omniglot), those of 84 by max-pooling (MiniImagenet)."""
    strided, channels = size == 28, 1 if size == 28 else 3

    def case() -> tuple[nn.Module, Callable[..., torch.Tensor], fs.tasks.Task]:
        layers: list[nn.Module] = []
        for inputs in (channels, filters, filters, filters):
            layers += [
                nn.Conv2d(inputs, filters, 3, stride=2 if strided else 1, padding=1),
                nn.BatchNorm2d(filters, track_running_stats=False),
                nn.ReLU(),
                nn.Identity() if strided else nn.MaxPool2d(2),
            ]
        pixels = 4 if strided else 25
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(filters * pixels, 5))
        labels = torch.arange(5).repeat(tasks, shots)
        support, query = (fs.tasks.Batch(torch.rand(tasks, 5 * shots, channels, size, size), labels) for _ in range(2))
        return model, fs.cross_entropy, fs.tasks.Task(support, query)

    return case


def omniglot(ways: int, shots: int = 1, tasks: int = 16) -> Case:
    """The library's own network for Omniglot."""

    def case() -> tuple[nn.Module, Callable[..., torch.Tensor], fs.tasks.Task]:
        labels = torch.arange(ways).repeat(tasks, shots)
        support, query = (fs.tasks.Batch(torch.rand(tasks, ways * shots, 1, 28, 28), labels) for _ in range(2))
        return fs.models.Conv4.omniglot(ways, norm="batch"), fs.cross_entropy, fs.tasks.Task(support, query)

    return case


CASES: dict[str, Case] = {
    "Conv4 28×28, 5-way 1-shot": omniglot(5),
    "Conv4 28×28, 5-way 2-shot": omniglot(5, 2),
    "Conv4 28×28, 20-way 1-shot": omniglot(20),
    "Conv4 28×28, 20-way 5-shot": omniglot(20, 5, tasks=4),
    "MLP 1-40-40-1, 10 shots": perceptron(40),
    "MLP 1-100-100-1, 10 shots": perceptron(100),
    "MLP 1-200-200-1, 10 shots": perceptron(200),
    "MLP 1-400-400-1, 10 shots": perceptron(400),
    "MLP 1-800-800-1, 10 shots": perceptron(800),
    "MLP 1-100-100-1, 1000 shots": perceptron(100, shots=1000),
    "conv 28×28, 4 × 8 filters, 1 shot": convolutional(28, 8),
    "conv 28×28, 4 × 16 filters, 1 shot": convolutional(28, 16),
    "conv 28×28, 4 × 32 filters, 1 shot": convolutional(28, 32),
    "conv 28×28, 4 × 64 filters, 1 shot": convolutional(28, 64),
    "conv 28×28, 4 × 64 filters, 5 shots": convolutional(28, 64, shots=5),
    "conv 84×84, 4 × 4 filters, 1 shot": convolutional(84, 4, tasks=4),
    "conv 84×84, 4 × 8 filters, 1 shot": convolutional(84, 8, tasks=4),
    "conv 84×84, 4 × 16 filters, 1 shot": convolutional(84, 16, tasks=4),
    "conv 84×84, 4 × 32 filters, 1 shot": convolutional(84, 32, tasks=4),
    "conv 84×84, 4 × 32 filters, 5 shots": convolutional(84, 32, shots=5, tasks=4),
}


def measure(case: Case, rounds: int) -> dict[str, float]:
    """Bytes kept, and how much faster than the loop vmap is, in one process and in turn."""
    torch.manual_seed(0)
    model, loss, tasks = case()
    learners = {name: fs.maml(model, loss, 0.01, vectorize=name == "vmap") for name in ("loop", "vmap")}

    def meta_gradient(learner: fs.MetaLearner) -> None:
        learner.zero_grad()
        learner.meta_loss(tasks).backward()

    times = in_turn({n: lambda v=v: meta_gradient(v) for n, v in learners.items()}, rounds, seconds=0.05)
    observed = check_task(
        FunctionalLoss(model, loss), model, dict(model.named_parameters()), learners["loop"].adapts, tasks
    )
    return {
        "saved_bytes": observed.saved_bytes,
        "tasks": len(tasks),
        "loop": statistics.median(times["loop"]),
        "vmap": statistics.median(times["vmap"]),
        "ratio": speedup(times, "vmap", "loop"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="turns that loop and vmap each have (default 9)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; with 1 (the default) on one core alone")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="only the networks that match, shell-style")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parse_on_allocator(parser)
    if options.threads == 1:
        use_one_core()
    torch.set_num_threads(options.threads)
    print_header("Loop over tasks against vmap: one meta-gradient, one inner step")
    results = {name: measure(case, options.rounds) for name, case in CASES.items() if fnmatchcase(name, options.only)}
    table = Table("network", "tasks", "MiB kept by a task", "loop ms", "vmap ms", "loop / vmap", "auto takes")
    for column in table.columns[1:-1]:
        column.justify = "right"
    for name, row in sorted(results.items(), key=lambda item: item[1]["saved_bytes"]):
        table.add_row(
            name,
            str(row["tasks"]),
            f"{row['saved_bytes'] / 2**20:.2f}",
            f"{row['loop'] * 1e3:.2f}",
            f"{row['vmap'] * 1e3:.2f}",
            f"{row['ratio']:.2f}",
            "loop" if row["saved_bytes"] > VMAP_LIMIT else "vmap",
        )
    console.print(table)
    console.print(f"VMAP_LIMIT is {VMAP_LIMIT / 2**20:g} MiB.")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

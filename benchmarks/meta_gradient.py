"""The meta-gradient of MAML's sinusoid regression, worked out by every library side by side in one run on one core.

25 tasks with 10 support and 10 query points, the network 1-40-40-1, 1 and 5 inner steps (MAML, section 5.1). Before
anything is timed, all contestants are checked to give the same meta-gradient. With ``--device cuda`` the meta-gradients
alone, on a GPU, where ours is recorded as a CUDA graph, and on as many cores as there are.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import torch
from measuring import console, in_turn, installed, print_header, print_times, speedup, use_one_core
from torch import Tensor, nn
from torch.nn import functional

import fewstep as fs

INNER_LR = 0.01
META_BATCH = 25
PAPER_ITERATIONS = 70_000

MetaGradient = Callable[[], list[Any]]
"""Computes the loss and returns the meta-gradient, in the order of the network's parameters."""


def autograd_loop(model: nn.Module, tasks: fs.tasks.Task, steps: int) -> MetaGradient:
    """The usual way: ``create_graph=True``, one task after the other; the network written as a function."""
    parameters = [p.detach().clone().requires_grad_() for p in model.parameters()]

    def predict(weights: list[Tensor], x: Tensor) -> Tensor:
        x = functional.linear(x, weights[0], weights[1]).relu()
        x = functional.linear(x, weights[2], weights[3]).relu()
        return functional.linear(x, weights[4], weights[5])

    def meta_gradient() -> list[Tensor]:
        total = torch.zeros(())
        for i in range(len(tasks)):
            task, weights = tasks[i], parameters
            for _ in range(steps):
                loss = functional.mse_loss(predict(weights, task.support.x), task.support.y)
                gradients = torch.autograd.grad(loss, weights, create_graph=True)
                weights = [w - INNER_LR * g for w, g in zip(weights, gradients, strict=True)]
            total = total + functional.mse_loss(predict(weights, task.query.x), task.query.y)
        return list(torch.autograd.grad(total / len(tasks), parameters))

    return meta_gradient


def with_higher(model: nn.Module, tasks: fs.tasks.Task, steps: int) -> MetaGradient:
    """As in higher's own examples: a differentiable optimiser for each task, ``backward`` task by task."""
    import higher

    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=INNER_LR)

    def meta_gradient() -> list[Tensor]:
        model.zero_grad()
        for i in range(len(tasks)):
            task = tasks[i]
            with higher.innerloop_ctx(model, optimizer, copy_initial_weights=False) as (adapted, inner):
                for _ in range(steps):
                    inner.step(functional.mse_loss(adapted(task.support.x), task.support.y))
                (functional.mse_loss(adapted(task.query.x), task.query.y) / len(tasks)).backward()
        return [p.grad for p in model.parameters()]

    return meta_gradient


def with_torchopt(model: nn.Module, tasks: fs.tasks.Task, steps: int) -> MetaGradient:
    """As in torchopt's own MAML example: ``MetaSGD``, with the network's state put back after each task."""
    import torchopt

    model = copy.deepcopy(model)
    parameters = list(model.parameters())
    inner = torchopt.MetaSGD(model, lr=INNER_LR)

    def meta_gradient() -> list[Tensor]:
        state = torchopt.extract_state_dict(model, by="reference")
        inner_state = torchopt.extract_state_dict(inner, by="reference")
        losses = []
        for i in range(len(tasks)):
            task = tasks[i]
            for _ in range(steps):
                inner.step(functional.mse_loss(model(task.support.x), task.support.y))
            losses.append(functional.mse_loss(model(task.query.x), task.query.y))
            torchopt.recover_state_dict(model, state)
            torchopt.recover_state_dict(inner, inner_state)
        return list(torch.autograd.grad(torch.stack(losses).mean(), parameters))

    return meta_gradient


def with_fewstep(model: nn.Module, tasks: fs.tasks.Task, steps: int, compile: bool) -> MetaGradient:
    """As a user of this library would write it."""
    learner = fs.maml(model, fs.mse, INNER_LR, steps, compile=compile)
    parameters = list(learner.parameters())

    def meta_gradient() -> list[Tensor]:
        for parameter in parameters:
            parameter.grad = None
        learner.meta_loss(tasks).backward()
        return [p.grad for p in parameters]

    return meta_gradient


def with_jax(model: nn.Module, tasks: fs.tasks.Task, steps: int) -> MetaGradient:
    """``value_and_grad`` of tasks under ``vmap``, the whole of it under ``jit``."""
    import jax
    import jax.numpy as jnp
    from jax_contestants import jax_device, on_device

    device = jax_device(tasks.support.x.device.type)
    parameters = [on_device(p, device) for p in model.parameters()]
    data = [on_device(t, device) for t in (tasks.support.x, tasks.support.y, tasks.query.x, tasks.query.y)]

    def loss(weights: list[Any], x: Any, y: Any) -> Any:
        x = jax.nn.relu(x @ weights[0].T + weights[1])
        x = jax.nn.relu(x @ weights[2].T + weights[3])
        return jnp.mean((x @ weights[4].T + weights[5] - y) ** 2)

    def task_loss(weights: list[Any], sx: Any, sy: Any, qx: Any, qy: Any) -> Any:
        for _ in range(steps):
            gradients = jax.grad(loss)(weights, sx, sy)
            weights = [w - INNER_LR * g for w, g in zip(weights, gradients, strict=True)]
        return loss(weights, qx, qy)

    def meta_loss(weights: list[Any], *data: Any) -> Any:
        return jnp.mean(jax.vmap(task_loss, in_axes=(None, 0, 0, 0, 0))(weights, *data))

    jax.config.update("jax_default_matmul_precision", "highest")  # else a GPU rounds factors to TF32
    value_and_gradient = jax.jit(jax.value_and_grad(meta_loss))
    return lambda: jax.block_until_ready(value_and_gradient(parameters, *data))[1]


def contestants(model: nn.Module, tasks: fs.tasks.Task, steps: int) -> dict[str, MetaGradient]:
    """All whose library is installed, ready to be called."""
    makers: dict[str, Callable[[], MetaGradient]] = {
        "autograd loop": lambda: autograd_loop(model, tasks, steps),
        "higher": lambda: with_higher(model, tasks, steps),
        "torchopt": lambda: with_torchopt(model, tasks, steps),
        "fewstep eager": lambda: with_fewstep(model, tasks, steps, compile=False),
        "fewstep compiled": lambda: with_fewstep(model, tasks, steps, compile=True),
        "JAX jit": lambda: with_jax(model, tasks, steps),
    }
    return installed(makers)


def check_that_all_agree(competitors: dict[str, MetaGradient]) -> float:
    """The largest difference of any contestant from the autograd loop; fails if it is more than rounding."""
    expected = competitors["autograd loop"]()
    largest = 0.0
    for name, meta_gradient in competitors.items():
        for mine, theirs in zip(meta_gradient(), expected, strict=True):
            mine = mine.cpu() if isinstance(mine, Tensor) else torch.tensor(mine.tolist())
            theirs = theirs.cpu()
            torch.testing.assert_close(
                mine, theirs, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
            largest = max(largest, (mine - theirs).abs().max().item())
    return largest


def first_call_seconds(steps: int) -> float:
    """The first compiled ``meta_loss`` of this process: what a user waits for."""
    learner = fs.maml(fs.models.MLP(1, [40, 40], 1), fs.mse, INNER_LR, steps, compile=True)
    tasks = fs.tasks.Sinusoids().sample(META_BATCH)
    start = time.perf_counter()
    learner.meta_loss(tasks)
    return time.perf_counter() - start


def cold_compile_seconds(steps: int) -> float:
    """The same in a process of its own whose compiler cache is empty."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--first-call", str(steps)]
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
        return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def training_seconds(iterations: int) -> tuple[float, float]:
    """The paper's training, one inner step: seconds of the first call, which compiles, and of all iterations after."""
    sinusoids = fs.tasks.Sinusoids(shots=10, queries=10)
    learner = fs.maml(fs.models.MLP(1, [40, 40], 1), fs.mse, INNER_LR, compile=True)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3, fused=True)
    start = time.perf_counter()
    learner.meta_loss(sinusoids.sample(META_BATCH))
    compiled = time.perf_counter()
    for i in range(iterations):
        tasks = sinusoids.sample(META_BATCH, fs.tasks.generator(0, i))
        optimizer.zero_grad()
        learner.meta_gradient(tasks)
        optimizer.step()
    return compiled - start, time.perf_counter() - compiled


def meta_gradient_times(rounds: int, device: str) -> dict[str, Any]:
    """Checks, times and prints all contestants at 1 and 5 inner steps."""
    results: dict[str, Any] = {}
    for steps in (1, 5):
        model, tasks = fs.models.MLP(1, [40, 40], 1), fs.tasks.Sinusoids(shots=10, queries=10).sample(META_BATCH)
        competitors = contestants(model.to(device), tasks.to(device), steps)
        difference = check_that_all_agree(competitors)
        console.print(f"\nAll agree with the autograd loop to {difference:.0e}.")
        times = in_turn(competitors, rounds, seconds=0.3)
        print_times(f"{steps} inner step{'s' if steps > 1 else ''}", times, "autograd loop")
        results[f"{steps} steps"] = times
        if "JAX jit" in times:
            ratio = 1 / speedup(times, "fewstep compiled", "JAX jit")
            console.print(f"fewstep compiled takes {ratio:.2f} × the time of JAX jit.")
    return results


def user_times(iterations: int) -> dict[str, Any]:
    """Times and prints what a user waits for on a CPU: compiling, and training."""
    results: dict[str, Any] = {}
    console.print()
    for steps in (1, 5):
        seconds = results[f"cold compile, {steps} steps"] = cold_compile_seconds(steps)
        console.print(f"Cold compile, {steps} inner step{'s' if steps > 1 else ''}: {seconds:.1f} s")
    first, rest = results[f"training, {iterations} iterations"] = training_seconds(iterations)
    console.print(
        f"Training with Adam and fresh tasks, compiled, {iterations:,} iterations: {rest:.1f} s "
        f"({rest / iterations * 1e3:.3f} ms each), after a first call of {first:.1f} s with a warm compiler cache."
        + ("" if iterations == PAPER_ITERATIONS else " The paper's 70,000 run with --full.")
    )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="how often each contestant has its turn (default 15)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--full", action="store_true", help="train for the paper's 70,000 iterations instead of 5,000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument(
        "--first-call", type=int, metavar="STEPS", help="only print the seconds of a first compiled call"
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if options.device == "cpu":
        use_one_core()
    torch.manual_seed(0)
    if options.first_call:
        print(first_call_seconds(options.first_call))
        return

    print_header("Meta-gradient of sinusoid MAML: 25 tasks × (10 + 10) points, network 1-40-40-1", options.device)
    results = meta_gradient_times(options.rounds, options.device)
    if options.device == "cpu":
        results |= user_times(PAPER_ITERATIONS if options.full else 5_000)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

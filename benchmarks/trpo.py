"""TRPO's outer step with the Fisher product against the same with the general Hessian-vector product, in one run.

2D navigation, the MAML paper's policy (two hidden layers of 100 units), 20 episodes of 100 steps for each task and
step. The outer step is taken on episodes that were sampled before: gradient, 10 iterations of conjugate gradients, line
search. The general product is the Hessian of the divergence times a vector, "forward over reverse" (a directional
derivative of the gradient) or "double backward" (the gradient's graph is kept and gone through for every product).
The learner takes five tasks at a time (``chunk=5``), the general products all at once. Before anything is timed, the
directions are checked to be the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import console, in_turn, parse_on_allocator, print_header, print_times, speedup, use_one_core
from torch import Tensor, nn
from torch.func import functional_call

import fewstep as fs
from fewstep import rl

Product = Callable[[Sequence[Tensor]], Sequence[Tensor]]


class Divergence(nn.Module):
    """The mean divergence of the adapted policies from what they were, as a function of the learner's parameters."""

    def __init__(self, learner: rl.MetaPolicy, trajectories: fs.tasks.Task) -> None:
        super().__init__()
        self.learner, self.trajectories = learner, trajectories
        with torch.no_grad():
            self.old = learner.distributions(trajectories)

    def forward(self) -> Tensor:
        return rl.mean_kl(self.trajectories, self.old, self.learner.distributions(self.trajectories))


def forward_over_reverse(learner: rl.MetaPolicy, trajectories: fs.tasks.Task) -> Product:
    divergence = Divergence(learner, trajectories)
    names = [name for name, _ in divergence.named_parameters()]
    at = tuple(value.detach() for value in learner.parameters())

    def kl(values: Sequence[Tensor]) -> Tensor:
        return functional_call(divergence, dict(zip(names, values, strict=True)), ())

    return lambda vector: torch.func.jvp(torch.func.grad(kl), (at,), (tuple(vector),))[1]


def double_backward(learner: rl.MetaPolicy, trajectories: fs.tasks.Task) -> Product:
    parameters = list(learner.parameters())
    gradient = torch.autograd.grad(Divergence(learner, trajectories)(), parameters, create_graph=True)
    return lambda vector: torch.autograd.grad(gradient, parameters, vector, retain_graph=True)


PRODUCTS: dict[str, Callable[[rl.MetaPolicy, fs.tasks.Task], Product]] = {
    "forward over reverse": forward_over_reverse,
    "double backward": double_backward,
    "Fisher product": rl.FisherProduct,
}


def outer_step(learner: rl.MetaPolicy, trajectories: fs.tasks.Task, product: Any) -> Callable[[], list[Tensor]]:
    """Takes the step, puts the parameters back, and returns the direction."""
    optimizer = rl.TRPO(learner)
    start = [value.detach().clone() for value in learner.parameters()]

    def step() -> list[Tensor]:
        other = None if product is rl.FisherProduct else product(learner, trajectories)
        _, _, direction = optimizer.search(trajectories, other)
        with torch.no_grad():
            for value, origin in zip(learner.parameters(), start, strict=True):
                value.copy_(origin)
        return direction

    return step


def direction_difference(precision: torch.dtype, tasks: int, episodes: int) -> dict[str, float]:
    """How far the direction of each is from that of the Fisher product, relative to its length."""
    learner, trajectories = sampled(tasks, episodes, precision)
    optimizer = rl.TRPO(learner)
    gradient = torch.autograd.grad(learner.loss_on(trajectories), list(learner.parameters()))
    found = {
        name: torch.cat([x.flatten() for x in optimizer.direction(gradient, make(learner, trajectories))])
        for name, make in PRODUCTS.items()
    }
    ours = found.pop("Fisher product")
    return {name: ((other - ours).norm() / ours.norm()).item() for name, other in found.items()}


def sampled(tasks: int, episodes: int, precision: torch.dtype) -> tuple[rl.MetaPolicy, fs.tasks.Task]:
    torch.manual_seed(0)
    environment = rl.environments.PointNavigation(tasks * episodes)
    rollouts = rl.Rollouts(environment, episodes)
    learner = rl.MetaPolicy(rl.GaussianPolicy(2, 2), rollouts, rule=fs.GradientDescent(0.1), chunk=5).to(precision)
    drawn = rl.EnvironmentTasks(environment).sample(tasks, fs.tasks.generator(0, 0)).to(precision)
    return learner, learner.collect(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each product has its turn (default 5)")
    parser.add_argument("--tasks", type=int, default=20, help="tasks of the meta-batch (default 20)")
    parser.add_argument("--episodes", type=int, default=20, help="episodes of each task (default 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parse_on_allocator(parser)
    use_one_core()
    print_header(f"TRPO's outer step: {options.tasks} tasks × {options.episodes} episodes × 100 steps, one inner step")
    differences = direction_difference(torch.float64, options.tasks, options.episodes)
    for name, difference in differences.items():
        console.print(
            f"Direction in float64: {name} differs from the Fisher product by {difference:.0e} of its length."
        )
        assert difference < 1e-6
    learner, trajectories = sampled(options.tasks, options.episodes, torch.float32)
    vector = [torch.randn_like(value) for value in learner.parameters()]
    made = {name: make(learner, trajectories) for name, make in PRODUCTS.items()}
    products = {name: lambda product=product: product(vector) for name, product in made.items()}
    steps = {name: outer_step(learner, trajectories, make) for name, make in PRODUCTS.items()}
    results: dict[str, Any] = {"directions": differences}
    for title, competitors in (("one product", products), ("the whole outer step", steps)):
        times = results[title] = in_turn(competitors, options.rounds, seconds=1.0)
        print_times(title, times, "forward over reverse")
        ratio = speedup(times, "Fisher product", "double backward")
        console.print(f"The Fisher product is {ratio:.2f} × as fast as double backward.")
        made.clear()  # with the graphs that they keep
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

"""Two processes that share the tasks of a meta-batch sample the episodes, and take the steps, that one does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fewstep as fs
from fewstep import parallel

rl = pytest.importorskip("fewstep.rl")


def learner_of(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    environment = rl.environments.PointNavigation(num_envs=7)
    rollouts = rl.Rollouts(environment, episodes=4, horizon=6)
    losses = {"objective": rl.e_maml} if name == "e-maml" else {}
    if name == "promp":
        losses = {"inner_loss": rl.surrogate, "loss": rl.clipped_surrogate(0.3)}
    policy = rl.GaussianPolicy(2, 2, [8])
    return rl.MetaPolicy(policy, rollouts, rule=fs.GradientDescent(0.1), steps=2, **losses, **options)


def tasks_of(learner: Any, count: int) -> Any:
    return rl.EnvironmentTasks(learner.rollouts.environment).sample(count, torch.Generator().manual_seed(count))


def trained(name: str, count: int, shared: bool, cg_tasks: int | None, chunk: int | None) -> dict[str, Any]:
    torch.set_default_dtype(torch.float64)
    try:
        learner = learner_of(name, chunk=chunk)
        tasks = tasks_of(learner, count)
        with parallel.together() if shared else parallel.alone():
            trajectories = learner.collect(tasks)
            optimizer = rl.ProMP(learner) if name == "promp" else rl.TRPO(learner, cg_tasks=cg_tasks)
            loss = optimizer.meta_step(tasks)
            scores = learner.score(tasks, steps=1)
            episodes = learner.episodes(tasks, steps=1)[1]
            learner.zero_grad()
            gradient = learner.meta_gradient(tasks)
        found = {f"parameter {n}": v.detach() for n, v in learner.named_parameters()}
        found |= {f"gradient {n}": v.grad for n, v in learner.named_parameters()}
        return {
            **found, "loss": loss, "scores": scores, "rewards": episodes.rewards, "credit": episodes.credit,
            "observations": trajectories.query.observations, "gradient": gradient,
            "report": torch.tensor(list(optimizer.report().values())),
        }  # fmt: skip
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("name", "count", "cg_tasks", "chunk"),
    [
        ("maml", 5, None, None),
        ("maml", 1, None, None),
        ("maml", 5, 2, 2),
        ("e-maml", 4, None, None),
        ("promp", 3, None, None),
    ],
)
def test_two_processes_train_a_policy_like_one(
    two: Any, name: str, count: int, cg_tasks: int | None, chunk: int | None
) -> None:
    alone = trained(name, count, False, cg_tasks, chunk)
    first, second = two(trained, name, count, True, cg_tasks, chunk)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
        # Conjugate gradients enlarge rounding, and so differ the parameters and what follows the step.
        torch.testing.assert_close(
            value, alone[key], rtol=1e-6, atol=1e-8, msg=lambda words, key=key: f"{key}: {words}"
        )


def product_of(shared: bool) -> list[Tensor]:
    learner = learner_of("maml").double()
    with parallel.alone():
        trajectories = learner.collect(tasks_of(learner, 3))
    with parallel.together() if shared else parallel.alone():
        product = rl.FisherProduct(learner, trajectories, 1)
        found: list[Tensor] = product(product.gradient)
    return found


def test_the_product_with_the_fisher_matrix_is_that_of_one_process(two: Any) -> None:
    alone = product_of(shared=False)
    for found in two(product_of, shared=True):
        torch.testing.assert_close(found, alone, rtol=1e-12, atol=1e-14)

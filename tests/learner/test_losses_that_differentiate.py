"""Losses that differentiate the model: with respect to inputs or parameters, with autograd or torch.func."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gradients.checks import regression_tasks
from torch import Tensor, nn

import fewstep as fs
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))


def physics(model: nn.Module, batch: Batch) -> Tensor:
    """A physics-informed loss: the residual of Σ ∂u/∂x + u = 0."""
    x = batch.x.detach().requires_grad_()
    u = model(x)
    slope = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    return (slope.sum(1) + u[:, 0]).square().mean()


def physics_of_second_order(model: nn.Module, batch: Batch) -> Tensor:
    """The residual of Δu = u."""
    x = batch.x.detach().requires_grad_()
    u = model(x)
    slope = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    laplacian = sum(torch.autograd.grad(slope[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(2))
    return (laplacian - u[:, 0]).square().mean()


def physics_with_func(model: nn.Module, batch: Batch) -> Tensor:
    """``physics`` with ``torch.func``."""
    slope = torch.vmap(torch.func.grad(lambda z: model(z[None]).sum()))(batch.x)
    return (slope.sum(1) + model(batch.x)[:, 0]).square().mean()


def physics_with_jvp(model: nn.Module, batch: Batch) -> Tensor:
    """``physics`` in forward mode."""
    u, slope = torch.func.jvp(model, (batch.x,), (torch.ones_like(batch.x),))
    return (slope[:, 0] + u[:, 0]).square().mean()


def hessian(model: nn.Module, batch: Batch) -> Tensor:
    """The curvature of the model with respect to its inputs, by two transforms."""
    return torch.vmap(torch.func.hessian(lambda z: model(z[None]).sum()))(batch.x).square().mean() + fs.mse(
        model, batch
    )


def gradient_penalty(model: nn.Module, batch: Batch) -> Tensor:
    """The loss plus the squared norm of its gradient with respect to the parameters."""
    value = fs.mse(model, batch)
    slopes = torch.autograd.grad(value, list(model.parameters()), create_graph=True)
    return value + 0.1 * sum(slope.square().sum() for slope in slopes)


def sharpness_with_func(model: nn.Module, batch: Batch) -> Tensor:
    """The loss after a step uphill, through ``functional_call`` on the given model."""
    params = dict(model.named_parameters())

    def of(params: dict[str, Tensor]) -> Tensor:
        return (torch.func.functional_call(model, params, (batch.x,)) - batch.y).square().mean()

    slopes = torch.func.grad(of)(params)
    return of({name: value + 0.1 * slopes[name] for name, value in params.items()})


LOSSES = [
    physics,
    physics_of_second_order,
    physics_with_func,
    physics_with_jvp,
    hessian,
    gradient_penalty,
    sharpness_with_func,
]
WAYS: dict[str, dict[str, Any]] = {
    "auto": {},
    "loop": {"vectorize": False},
    "recomputed": {"vectorize": False, "adjoint": fs.Recomputed()},
}


@pytest.mark.filterwarnings("ignore:Looping over tasks")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss", LOSSES)
def test_meta_gradient_is_right(loss: Any, way: str) -> None:
    learner, tasks = fs.maml(network(), loss, 0.05, 2, **WAYS[way]), regression_tasks(2)
    learner.meta_loss(tasks).backward()
    values = list(learner.parameters())
    for value in values:
        direction, ends = torch.randn_like(value), []
        for distance in (1e-5, -2e-5):
            with torch.no_grad():
                value.add_(distance * direction)
            ends.append(learner.meta_loss(tasks).item())
        with torch.no_grad():
            value.add_(1e-5 * direction)
        slope = (ends[0] - ends[1]) / 2e-5
        assert (value.grad * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-8)
    assert all(value.grad.abs().max() > 1e-5 for value in values[:-1])


OF_CONSTANTS = [physics, physics_of_second_order, gradient_penalty]


@pytest.mark.parametrize("loss", LOSSES)
def test_check_gradients_supports_them(loss: Any) -> None:
    learner = fs.maml(network(), loss, 0.05, 2, vectorize=False)
    check = fs.check_gradients(learner, regression_tasks(2), directions=1, tolerance=1e-5)
    assert check.ok, check
    assert not check.unclear, check


@pytest.mark.parametrize("inside", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("loss", LOSSES)
def test_meta_loss_without_gradients(loss: Any, inside: Any) -> None:
    """As in a custom validation loop."""
    learner, tasks = fs.maml(network(), loss, 0.05, 2, vectorize=False), regression_tasks(2)
    expected = learner.meta_loss(tasks)
    with inside():
        came = learner.meta_loss(tasks)
    assert not came.requires_grad
    torch.testing.assert_close(came, expected.detach(), rtol=1e-12, atol=1e-12)


def by_hand(model: nn.Module, loss: Any, task: Task, lr: float, steps: int) -> list[Tensor]:
    """The loss of the query set before and after each step of a plain loop; the model ends adapted."""
    values = [loss(model, task.query).detach()]
    for _ in range(steps):
        slopes = torch.autograd.grad(loss(model, task.support), list(model.parameters()))
        with torch.no_grad():
            for value, slope in zip(model.parameters(), slopes, strict=True):
                value.sub_(lr * slope)
        values.append(loss(model, task.query).detach())
    return values


@pytest.mark.filterwarnings("ignore:Looping over tasks")
@pytest.mark.parametrize("choices", [{}, {"vectorize": False}, {"adjoint": fs.FirstOrder()}], ids=["", "loop", "first"])
@pytest.mark.parametrize("loss", LOSSES)
def test_score_evaluate_and_adapt_equal_a_plain_loop(loss: Any, choices: dict[str, Any]) -> None:
    net, tasks = network(), regression_tasks(2)
    learner = fs.maml(net, loss, 0.05, 2, **choices)
    scores = learner.score(tasks)
    assert not scores.requires_grad

    class Source:
        def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
            return tasks[:n]

    evaluated = fs.evaluate(learner, Source(), num_tasks=2)
    assert evaluated.metric == loss.__name__
    adapted = learner.adapt(tasks.support[0])
    twins = [network(), network()]
    for i, twin in enumerate(twins):
        twin.load_state_dict(net.state_dict())
        expected = torch.stack(by_hand(twin, loss, tasks[i], 0.05, 2))
        torch.testing.assert_close(scores[i], expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(evaluated.values[i], expected, rtol=1e-10, atol=1e-12)
    for came, right in zip(adapted.parameters(), twins[0].parameters(), strict=True):
        torch.testing.assert_close(came, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("inside", [torch.no_grad, torch.inference_mode])
def test_they_work_without_gradients(inside: Any) -> None:
    learner, tasks = fs.maml(network(), physics, 0.05, 2, vectorize=False), regression_tasks(2)
    expected = learner.score(tasks), learner.adapt(tasks.support[0])[0].weight
    with inside():
        scores, adapted = learner.score(tasks), learner.adapt(tasks.support[0])
    torch.testing.assert_close(scores, expected[0], rtol=0, atol=0)
    torch.testing.assert_close(adapted[0].weight, expected[1], rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:Looping over tasks")
def test_a_metric_may_differentiate_the_model() -> None:
    learner, tasks = fs.maml(network(), fs.mse, 0.05, 1), regression_tasks(2)
    for metric in (physics, gradient_penalty):
        scores = learner.score(tasks, metric)
        adapted = [metric(learner.adapt(tasks.support[i]), tasks[i].query).detach() for i in range(2)]
        torch.testing.assert_close(scores[:, 1], torch.stack(adapted))


class Forces(nn.Module):
    """An energy; the model outputs its gradient with respect to the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = network()

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            return -torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]


@pytest.mark.filterwarnings("ignore:Looping over tasks")
@pytest.mark.parametrize("way", WAYS)
def test_models_that_differentiate_themselves(way: str) -> None:
    learner, tasks = fs.maml(Forces(), fs.mse, 0.1, 2, **WAYS[way]), regression_tasks(2, outputs=2)
    check = fs.check_gradients(learner, tasks, directions=1)
    assert check.ok, check
    adapted = learner.adapt(tasks.support[0])
    torch.testing.assert_close(learner.score(tasks)[0, 2], fs.mse(adapted, tasks[0].query).detach())


class WithJacobian(nn.Module):
    """A Hamiltonian's flow, with ``torch.func`` in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = network()

    def forward(self, x: Tensor) -> Tensor:
        slope = torch.vmap(torch.func.grad(lambda z: self.energy(z[None]).sum()))(x)
        return torch.stack([slope[:, 1], -slope[:, 0]], 1)


@pytest.mark.parametrize("way", WAYS)
def test_models_with_torch_func(way: str) -> None:
    learner, tasks = fs.maml(WithJacobian(), fs.mse, 0.1, 2, **WAYS[way]), regression_tasks(2, outputs=2)
    assert fs.check_gradients(learner, tasks, directions=1).ok
    adapted = learner.adapt(tasks.support[0])
    torch.testing.assert_close(learner.score(tasks)[0, 2], fs.mse(adapted, tasks[0].query).detach())

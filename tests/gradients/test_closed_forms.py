"""Meta-gradients with closed forms: a quadratic, Reptile, and the minimum of a ridge regression."""

import pytest
import torch
from gradients.checks import assert_matches_differences, assert_same, meta_gradient, regression_tasks
from torch import nn

import fewstep as fs
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")

CURVATURE = [[2.0, 0.4], [0.4, 0.9]]
LR = 0.3


def quadratic(model, batch):
    """½(θ − x)ᵀA(θ − x), the mean over examples x."""
    difference = model(batch.x)
    return 0.5 * torch.einsum("ni,ij,nj->n", difference, torch.tensor(CURVATURE), difference).mean()


def point():
    return fs.models.Function(lambda params, x: params["theta"] - x, {"theta": torch.tensor([0.7, -1.2])})


def points(count=4):
    support, query = torch.randn(count, 1, 2), torch.randn(count, 1, 2)
    return Task(Batch(support, support), Batch(query, query))


def contraction(steps):
    return torch.linalg.matrix_power(torch.eye(2) - LR * torch.tensor(CURVATURE), steps)


@pytest.mark.parametrize("steps", [1, 3, 6])
@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed()])
def test_quadratic(adjoint, steps):
    """φ = x + (I − αA)ᴷ(θ − x), and dL/dθ = (I − αA)ᴷ A(φ − z) for the query point z."""
    learner, tasks = fs.maml(point(), quadratic, LR, steps, adjoint=adjoint), points()
    theta, support, query = learner.model.theta.detach(), tasks.support.x[:, 0], tasks.query.x[:, 0]
    phi = support + (theta - support) @ contraction(steps)
    expected = ((phi - query) @ torch.tensor(CURVATURE) @ contraction(steps)).mean(0)
    assert_same(meta_gradient(learner, tasks), {"model.theta": expected}, atol=1e-12)
    for i in range(len(tasks)):
        torch.testing.assert_close(learner.adapt(tasks.support[i]).theta.detach(), phi[i])


@pytest.mark.parametrize("steps", [1, 4])
def test_quadratic_to_first_order(steps):
    """Without second derivatives (I − αA)ᴷ becomes I."""
    learner, tasks = fs.fomaml(point(), quadratic, LR, steps), points()
    theta, support, query = learner.model.theta.detach(), tasks.support.x[:, 0], tasks.query.x[:, 0]
    phi = support + (theta - support) @ contraction(steps)
    expected = ((phi - query) @ torch.tensor(CURVATURE)).mean(0)
    assert_same(meta_gradient(learner, tasks), {"model.theta": expected}, atol=1e-12)


@pytest.mark.parametrize("vectorize", [True, False])
def test_reptile(vectorize):
    rule = fs.Adam(0.05, betas=(0.0, 0.999))
    learner = fs.reptile(fs.models.MLP(2, [5], 1), fs.mse, rule, steps=4, vectorize=vectorize)
    tasks = regression_tasks()
    phis = [dict(learner.adapt(tasks.support[i]).named_parameters()) for i in range(len(tasks))]
    expected = {
        f"model.{name}": torch.stack([(value - phi[name]).detach() for phi in phis]).mean(0)
        for name, value in learner.model.named_parameters()
    }
    assert all(value.abs().max() > 1e-3 for value in expected.values())
    assert_same(meta_gradient(learner, tasks), expected, atol=1e-12)


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder()])
@pytest.mark.parametrize("vectorize", [True, False])
def test_each_step_uses_its_part_of_the_support_set(adjoint, vectorize):
    """Seven examples in parts of three: steps on 0, 3, 6; on 1, 4; on 2, 5; and again on the first part."""
    model, steps = fs.models.MLP(2, [5], 1), 4
    learner = fs.MetaLearner(
        model, fs.mse, rule=fs.GradientDescent(0.2), steps=steps, adjoint=adjoint, inner_batch=3, vectorize=vectorize
    )
    tasks = regression_tasks(shots=7)
    shares = [[0, 3, 6], [1, 4], [2, 5], [0, 3, 6]]

    theta = {name: value.detach().requires_grad_() for name, value in learner.model.named_parameters()}
    losses = []
    for i in range(len(tasks)):
        phi = theta
        for share in shares:
            x, y = tasks.support[i].x[share], tasks.support[i].y[share]
            loss = (torch.func.functional_call(model, phi, x) - y).square().mean()
            second = adjoint != fs.FirstOrder()
            slopes = torch.autograd.grad(loss, list(phi.values()), create_graph=second)
            phi = {name: value - 0.2 * slope for (name, value), slope in zip(phi.items(), slopes, strict=True)}
        query = tasks.query[i]
        losses.append((torch.func.functional_call(model, phi, query.x) - query.y).square().mean())
        for name, value in learner.adapt(tasks.support[i]).named_parameters():
            torch.testing.assert_close(value.detach(), phi[name].detach())
    expected = torch.autograd.grad(torch.stack(losses).mean(), list(theta.values()))
    expected = dict(zip((f"model.{name}" for name in theta), expected, strict=True))
    assert_same(meta_gradient(learner, tasks), expected, atol=1e-12)
    whole = fs.maml(model, fs.mse, 0.2, steps, adjoint=adjoint)
    batch_of_all = fs.maml(model, fs.mse, 0.2, steps, adjoint=adjoint, inner_batch=7)
    assert_same(meta_gradient(batch_of_all, tasks), meta_gradient(whole, tasks), atol=1e-12)


class Features(nn.Module):
    """Linear regression on features whose scale is shared and not adapted."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.2, 0.7, -0.9]))
        self.weight = nn.Parameter(torch.tensor([0.5, -0.3, 0.8]))

    def forward(self, x):
        return (torch.tanh(x * self.scale) @ self.weight)[:, None]


def ridge(theta, scale, batch, regularization):
    """argmin_w mean (Fw − y)² + λ/2·‖w − θ‖² by its normal equations."""
    features = torch.tanh(batch.x * scale)
    system = 2 / len(batch.x) * features.T @ features + regularization * torch.eye(3)
    return torch.linalg.solve(system, 2 / len(batch.x) * features.T @ batch.y[:, 0] + regularization * theta)


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("regularization", [0.5, 2.0])
def test_implicit_is_the_derivative_of_the_exact_solution(regularization, vectorize):
    learner = fs.imaml(
        Features(),
        fs.mse,
        inner_lr=0.3,
        steps=200,
        regularization=regularization,
        cg_steps=3,
        adapts="weight",
        vectorize=vectorize,
    )
    tasks = regression_tasks(shots=6, inputs=3)
    theta, scale = (getattr(learner.model, name).detach().clone().requires_grad_() for name in ("weight", "scale"))
    losses = []
    for i in range(len(tasks)):
        phi = ridge(theta, scale, tasks.support[i], regularization)
        query = tasks.query[i]
        losses.append(((torch.tanh(query.x * scale) @ phi)[:, None] - query.y).square().mean())
    exact = torch.stack(losses).mean()
    expected = dict(zip(("model.weight", "model.scale"), torch.autograd.grad(exact, (theta, scale)), strict=True))
    torch.testing.assert_close(learner.meta_loss(tasks), exact)
    assert_same(dict(sorted(meta_gradient(learner, tasks).items())), dict(sorted(expected.items())), atol=1e-10)


def test_damping_stiffens_the_implicit_system():
    """x = (I + ∇²L/(λ + d))⁻¹·∇L(φ; query) on the quadratic, whose curvature is A everywhere."""
    regularization, damping, curvature = 2.0, 6.0, torch.tensor(CURVATURE)
    choices = {"regularization": regularization, "damping": damping, "cg_steps": 2}
    learner, tasks = fs.imaml(point(), quadratic, 0.3, 100, **choices), points()
    theta, support, query = learner.model.theta.detach(), tasks.support.x[:, 0], tasks.query.x[:, 0]
    both = curvature + regularization * torch.eye(2)
    phi = torch.linalg.solve(both, support @ curvature + regularization * theta, left=False)
    system = torch.eye(2) + curvature / (regularization + damping)
    expected = torch.linalg.solve(system, (phi - query) @ curvature, left=False).mean(0)
    assert_same(meta_gradient(learner, tasks), {"model.theta": expected}, atol=1e-12)


def test_implicit_on_a_network_near_its_minimum():
    """If the inner problem is solved, the implicit gradient agrees with finite differences, also for a network."""
    model = nn.Sequential(nn.Linear(2, 1), nn.Tanh())
    learner = fs.imaml(model, fs.mse, inner_lr=0.15, steps=120, regularization=2.0, cg_steps=4)
    assert_matches_differences(learner, regression_tasks(count=2))

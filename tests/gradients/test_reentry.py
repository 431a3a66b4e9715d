"""Code that calls the model again in a backward pass gets the same results as in the forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gradients.checks import assert_same, by_hand, meta_gradient, regression_tasks
from gradients.own_modules import mlp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import fewstep as fs
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")

ADJOINTS = [fs.Unrolled(), fs.Recomputed(), fs.Recomputed("forward"), fs.FirstOrder(), fs.Implicit(2.0)]


def tasks() -> Task:
    return regression_tasks(2, inputs=4, outputs=2)


class Body(nn.Module):
    """A body that is called as ``way`` says."""

    def __init__(self, body: nn.Module, way: Any) -> None:
        super().__init__()
        self.body, self.way = body, way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


class Adjoint(torch.autograd.Function):
    """Euler steps of z' = f(z), which backward repeats, as ``odeint_adjoint`` calls its model there."""

    @staticmethod
    def forward(ctx: Any, f: Any, z: Tensor, *params: Tensor) -> Tensor:
        ctx.f = f
        ctx.save_for_backward(z, *params)
        return Adjoint.steps(f, z)

    @staticmethod
    def steps(f: Any, z: Tensor) -> Tensor:
        for _ in range(3):
            z = z + 0.2 * f(z)
        return z

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        graph = torch.is_grad_enabled()
        start, *params = ctx.saved_tensors
        with torch.enable_grad():
            z = start if start.requires_grad else start.detach().requires_grad_()
            end = Adjoint.steps(ctx.f, z)
            return None, *torch.autograd.grad(end, (z, *params), cotangent, create_graph=graph, allow_unused=True)


WAYS: dict[str, tuple[Any, Any]] = {
    "checkpoint": (
        lambda net, x: checkpoint(net.body, x, use_reentrant=False),
        lambda net, x: net.body(x),
    ),
    "checkpoint_sequential": (
        lambda net, x: checkpoint_sequential(net.body, 2, x, use_reentrant=False),
        lambda net, x: net.body(x),
    ),
    "checkpointed function": (
        lambda net, x: checkpoint(lambda z: F.normalize(net.body(z), dim=1), x, use_reentrant=False),
        lambda net, x: F.normalize(net.body(x), dim=1),
    ),
    "checkpoint in a checkpoint": (
        lambda net, x: checkpoint(
            lambda z: net.body[2](checkpoint(net.body[:2], z, use_reentrant=False)), x, use_reentrant=False
        ),
        lambda net, x: net.body(x),
    ),
    "adjoint equations": (
        lambda net, x: net.body[2](Adjoint.apply(net.body[0], x, *net.body[0].parameters())),
        lambda net, x: net.body[2](Adjoint.steps(net.body[0], x)),
    ),
}
"""With checkpointing, and without."""


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
@pytest.mark.parametrize("way", WAYS)
def test_it_computes_with_the_adapted_parameters(way: str, adjoint: fs.Adjoint) -> None:
    body = mlp() if way != "adjoint equations" else nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    made = tasks()
    came, expected = (
        meta_gradient(fs.maml(Body(body, each), fs.mse, 0.2, 3, adjoint=adjoint, vectorize=False), made)
        for each in WAYS[way]
    )
    assert_same(came, expected, atol=1e-12)
    adapted = [fs.maml(Body(body, each), fs.mse, 0.2, 3).adapt(made.support[0]) for each in WAYS[way]]
    torch.testing.assert_close(*(net.body[0].weight for net in adapted), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
def test_checkpoints_in_the_loss(adjoint: fs.Adjoint) -> None:
    """Norms, whose second derivative is replaced in the recomputation too."""

    def plain(model: nn.Module, batch: Batch) -> Tensor:
        return torch.linalg.vector_norm(model(batch.x) - batch.y, dim=1).mean()

    def checkpointed(model: nn.Module, batch: Batch) -> Tensor:
        return checkpoint(lambda x: plain(model, Batch(x, batch.y)), batch.x, use_reentrant=False)

    net, made = mlp(), tasks()
    came, expected = (
        meta_gradient(fs.maml(net, loss, 0.1, 2, adjoint=adjoint, vectorize=False), made)
        for loss in (checkpointed, plain)
    )
    assert_same(came, expected, atol=1e-12)


@pytest.mark.parametrize("adjoint", ADJOINTS[:-1], ids=repr)
def test_dropout_in_a_checkpoint_is_drawn_once(adjoint: fs.Adjoint) -> None:
    body, made, found = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)), tasks(), []
    for way in WAYS["checkpoint"]:
        learner = fs.maml(Body(body, way), fs.mse, 0.1, 2, adjoint=adjoint, vectorize=False)
        torch.manual_seed(1)
        found.append(meta_gradient(learner, made))
    assert_same(*found, atol=1e-12)


@pytest.mark.parametrize("norm", [lambda: fs.models.PerStepNorm(5, steps=3), lambda: nn.GroupNorm(1, 5)])
def test_norms_in_a_checkpoint_are_at_the_same_step(norm: Any) -> None:
    body, made = nn.Sequential(nn.Linear(4, 5), norm(), nn.Tanh(), nn.Linear(5, 2)), tasks()
    with torch.no_grad():
        body[1].weight.copy_(torch.rand_like(body[1].weight))
    came, expected = (
        meta_gradient(fs.maml(Body(body, way), fs.mse, 0.2, 3, vectorize=False), made) for way in WAYS["checkpoint"]
    )
    assert_same(came, expected, atol=1e-12)


class Hooked(nn.Module):
    """A tensor hook that halves the gradient, as gradient scaling does."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        if h.requires_grad:
            h.register_hook(lambda gradient: 0.5 * gradient)
        return self.b(h)


HOOKS = pytest.mark.xfail(strict=True, raises=ValueError, reason="refused: under vmap hooks run in one gradient only")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"vectorize": True}, marks=HOOKS),
        {"vectorize": False},
        {"vectorize": False, "adjoint": fs.Recomputed()},
    ],
    ids=str,
)
def test_hooks_on_tensors_do_what_they_do_in_an_ordinary_loop(options: dict[str, Any]) -> None:
    net, made = Hooked(), tasks()
    assert_same(meta_gradient(fs.maml(net, fs.mse, 0.1, 2, **options), made), by_hand(net, made), atol=1e-12)

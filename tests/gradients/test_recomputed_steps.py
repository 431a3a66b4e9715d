"""What ``Recomputed`` keeps of a step, and what it recomputes: the gradient and the rule's update."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradients.checks import meta_gradient, regression_tasks
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fewstep as fs
from fewstep.adaptation.rules import Params

pytestmark = pytest.mark.usefixtures("double")

MODES = ["reverse", "forward"]


class Noted(nn.Module):
    """A rule with a learned scale that saves roots and squares, and records the gradients that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.1))
        self.seen: list[weakref.ref[Tensor]] = []

    def init(self, params: Params) -> Params:
        return {name: torch.zeros_like(value) for name, value in params.items()}

    def update(self, params: Params, grads: Params, state: Params, step: int, loss: Tensor) -> tuple[Params, Params]:
        self.seen += [weakref.ref(gradient) for gradient in grads.values()]
        squares = {name: 0.5 * state[name] + grads[name].square() for name in params}
        moved = {n: params[n] - self.scale * grads[n] * loss / (squares[n] + 1).sqrt() for n in params}
        return moved, squares


class Noisy(Noted):
    """Scales its steps by random numbers."""

    def update(self, params: Params, grads: Params, state: Params, step: int, loss: Tensor) -> tuple[Params, Params]:
        return super().update(params, {n: g * torch.rand_like(g) for n, g in grads.items()}, state, step, loss)


class Fickle(Noted):
    """Does a different computation the second time."""

    def update(self, params: Params, grads: Params, state: Params, step: int, loss: Tensor) -> tuple[Params, Params]:
        first = len(self.seen) < len(params)
        moved, state = super().update(params, grads, state, step, loss)
        return ({n: value.exp().log() for n, value in moved.items()}, state) if first else (moved, state)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def gradients(rule: Callable[[], nn.Module], adjoint: fs.Adjoint, **options: Any) -> list[Tensor]:
    torch.manual_seed(1)
    learner = fs.MetaLearner(small(), fs.mse, rule=rule(), steps=4, adjoint=adjoint, vectorize=False, **options)
    return meta_gradient(learner, regression_tasks())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rule", [Noted, Noisy, lambda: fs.Adam(nn.Parameter(torch.tensor(0.05)))])
def test_the_same_gradients_as_unrolled(rule: Callable[[], nn.Module], mode: str) -> None:
    torch.testing.assert_close(gradients(rule, fs.Recomputed(mode)), gradients(rule, fs.Unrolled()))


@pytest.mark.parametrize(("mode", "kept"), [("reverse", 4), ("forward", 0)])
def test_how_many_gradients_are_kept(mode: str, kept: int) -> None:
    """In reverse mode those of the last step, whose graph is kept; in forward mode detached ones."""
    model, rule = small(), Noted()
    params, task = dict(model.named_parameters()), regression_tasks()[0]

    def loss(params: Params, batch: Any) -> Tensor:
        return (torch.func.functional_call(model, params, batch.x) - batch.y).square().mean()

    adapted = fs.adapt(loss, params, task.support, rule, 5, fs.Recomputed(mode))
    gc.collect()
    assert sum(reference() is not None for reference in rule.seen) == kept
    expected = torch.autograd.grad(loss(fs.adapt(loss, params, task.support, rule, 5), task.query), [rule.scale])
    torch.testing.assert_close(torch.autograd.grad(loss(adapted, task.query), [rule.scale]), expected)


@pytest.mark.parametrize("mode", MODES)
def test_a_second_backward_pass_through_the_same_graph(mode: str) -> None:
    model, rule = small(), Noted()
    params, task = dict(model.named_parameters()), regression_tasks()[0]

    def loss(params: Params, batch: Any) -> Tensor:
        return (torch.func.functional_call(model, params, batch.x) - batch.y).square().mean()

    value = loss(fs.adapt(loss, params, task.support, rule, 3, fs.Recomputed(mode)), task.query)
    wanted = [rule.scale, *params.values()]
    first = torch.autograd.grad(value, wanted, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(value, wanted), first)


def test_a_rule_that_differs_the_second_time_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"saved \d+ tensors instead of \d+.*adjoint=Unrolled"):
        gradients(Fickle, fs.Recomputed())


@pytest.mark.parametrize("mode", MODES)
def test_checkpoints_inside(mode: str) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = small(), nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(checkpoint(self.body, x, use_reentrant=False))

    found = []
    for adjoint in fs.Recomputed(mode), fs.Unrolled():
        torch.manual_seed(2)
        learner = fs.MetaLearner(Checkpointed(), fs.mse, rule=Noted(), steps=3, adjoint=adjoint, vectorize=False)
        found.append(meta_gradient(learner, regression_tasks()))
    torch.testing.assert_close(*found)

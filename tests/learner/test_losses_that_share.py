"""Losses that are modules and hold the model, or a parameter of it: a shared tensor stays shared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gradients.checks import meta_gradient, regression_tasks
from torch import Tensor, nn

import fewstep as fs
from fewstep.tasks import Batch

pytestmark = pytest.mark.usefixtures("double")


class Decay(nn.Module):
    """A squared error, and a penalty on a weight that the loss holds."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        weight = self.held if isinstance(self.held, Tensor) else self.held.weight
        return fs.mse(model, batch) + 0.3 * weight.square().sum()


def decay_by_attribute(model: nn.Module, batch: Batch) -> Tensor:
    """The same with the weight of the given model."""
    return fs.mse(model, batch) + 0.3 * model[0].weight.square().sum()


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def held(net: nn.Sequential, kind: str) -> Decay:
    return Decay({"weight": net[0].weight, "layer": net[0]}[kind])


@pytest.mark.parametrize("kind", ["weight", "layer"])
@pytest.mark.parametrize("vectorize", [True, False])
def test_one_loss_for_both_loops(kind: str, vectorize: bool) -> None:
    net, tasks = network(), regression_tasks()
    ours = fs.maml(net, held(net, kind), 0.1, 2, vectorize=vectorize)
    check_same(ours, fs.maml(net, decay_by_attribute, 0.1, 2), tasks)


@pytest.mark.parametrize("kind", ["weight", "layer"])
def test_in_the_inner_loop(kind: str) -> None:
    net, tasks = network(), regression_tasks()
    ours = fs.maml(net, fs.mse, 0.1, 2, inner_loss=held(net, kind))
    check_same(ours, fs.maml(net, fs.mse, 0.1, 2, inner_loss=decay_by_attribute), tasks)


@pytest.mark.parametrize("kind", ["weight", "layer"])
def test_in_the_outer_loop(kind: str) -> None:
    net, tasks = network(), regression_tasks()
    ours = fs.maml(net, held(net, kind), 0.1, 2, inner_loss=fs.mse)
    check_same(ours, fs.maml(net, decay_by_attribute, 0.1, 2, inner_loss=fs.mse), tasks)


def check_same(ours: fs.MetaLearner, plain: fs.MetaLearner, tasks: fs.Task) -> None:
    torch.testing.assert_close(ours.meta_loss(tasks), plain.meta_loss(tasks))
    came, expected = meta_gradient(ours, tasks), meta_gradient(plain, tasks)
    for name, gradient in expected.items():
        torch.testing.assert_close(came[name], gradient, rtol=1e-10, atol=1e-12)
    adapted = [each.adapt(tasks.support[0]) for each in (ours, plain)]
    torch.testing.assert_close(adapted[0][0].weight, adapted[1][0].weight)


def test_a_teacher_is_not_changed() -> None:
    """Distillation: a loss that holds another network, which is not learned."""
    teacher = network().requires_grad_(False)

    class Distilled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.teacher = teacher

        def forward(self, model: nn.Module, batch: Batch) -> Tensor:
            return (model(batch.x) - self.teacher(batch.x)).square().mean()

    def closure(model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch.x) - teacher(batch.x)).square().mean()

    net, tasks = network(), regression_tasks()
    ours = fs.maml(net, Distilled(), 0.1, 2)
    check_same(ours, fs.maml(net, closure, 0.1, 2), tasks)
    assert len([value for value in ours.parameters() if value.requires_grad]) == 4

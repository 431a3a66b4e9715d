"""Changes of ``learner.model`` after the first meta-batch are used or refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gradients.checks import assert_same, meta_gradient, regression_tasks
from torch import Tensor, nn

import fewstep as fs

pytestmark = pytest.mark.usefixtures("double")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def replace_layer(model: nn.Sequential) -> None:
    model[2] = nn.Linear(3, 1)


def replace_parameter(model: nn.Sequential) -> None:
    model[2].weight = nn.Parameter(torch.randn(1, 3))


def replace_activation(model: nn.Sequential) -> None:
    model[1] = nn.Softplus()


def hook(model: nn.Sequential) -> None:
    model[0].register_forward_hook(lambda module, args, output: 2 * output)


def hook_before(model: nn.Sequential) -> None:
    model[0].register_forward_pre_hook(lambda module, args: (args[0].sin(),))


def forward_of_an_instance(model: nn.Sequential) -> None:
    old = model[0].forward
    model[0].forward = lambda x: 3 * old(x)


def write_to_a_parameter(model: nn.Sequential) -> None:
    with torch.no_grad():
        model[0].weight.mul_(-2)


def write_to_data(model: nn.Sequential) -> None:
    model[0].weight.data = torch.randn(3, 2)


def load_and_assign(model: nn.Sequential) -> None:
    model.load_state_dict(network().state_dict(), assign=True)


CHANGES = [
    replace_layer,
    replace_parameter,
    replace_activation,
    hook,
    hook_before,
    forward_of_an_instance,
    write_to_a_parameter,
    write_to_data,
    load_and_assign,
]


@pytest.mark.parametrize(
    "choose", [lambda net: fs.maml(net, fs.mse, 0.3, 3), lambda net: fs.anil(net, fs.mse, 0.3, 3, head="2.*")]
)
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_learner_equals_one_that_was_made_with_the_change(change: Callable[[Any], None], choose: Any) -> None:
    learner, tasks = choose(network()), regression_tasks()
    before = learner.score(tasks)
    learner.meta_loss(tasks).backward()
    change(learner.model)
    fresh = choose(learner.model)
    torch.testing.assert_close(learner.score(tasks), fresh.score(tasks))
    assert not torch.allclose(learner.score(tasks), before)
    assert_same(meta_gradient(learner, tasks), meta_gradient(fresh, tasks), atol=1e-12)
    support = tasks.support[0]
    torch.testing.assert_close(learner.adapt(support)(support.x), fresh.adapt(support)(support.x))


def test_a_parameter_that_is_frozen_later_gets_no_gradient() -> None:
    learner, tasks = fs.maml(network(), fs.mse, 0.3, 2), regression_tasks()
    before = meta_gradient(learner, tasks)
    learner.zero_grad(set_to_none=True)
    learner.model[0].weight.requires_grad_(False)
    learner.meta_loss(tasks).backward()
    assert learner.model[0].weight.grad is None
    torch.testing.assert_close(learner.model[2].weight.grad, before["model.2.weight"])


def test_a_later_parametrization_is_used_or_refused() -> None:
    learner, tasks = fs.maml(network(), fs.mse, 0.3), regression_tasks()
    nn.utils.parametrizations.weight_norm(learner.model[0])
    try:
        came = learner.meta_loss(tasks)
    except ValueError as error:
        assert "0.weight" in str(error)  # noqa: PT017
        return
    torch.testing.assert_close(came, fs.maml(learner.model, fs.mse, 0.3).meta_loss(tasks))


class Noisy(nn.Module):
    def __init__(self, draw: Callable[[], Any]) -> None:
        super().__init__()
        self.layer, self.draw = nn.Linear(2, 1), draw

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (0.5 + self.draw())


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize(
    ("draw", "seed"),
    [
        (lambda: torch.rand(()), torch.manual_seed),
        (lambda: float(np.random.rand()), np.random.seed),
        (random.random, random.seed),
    ],
    ids=["torch", "numpy", "random"],
)
def test_a_resumed_run_that_checks_again_draws_the_same_numbers(draw: Any, seed: Any, vectorize: bool) -> None:
    learner, tasks, losses = fs.maml(Noisy(draw), fs.mse, 0.1, vectorize=vectorize), regression_tasks(), []
    for _ in range(2):
        seed(3)
        losses.append(learner.meta_loss(tasks).item())
    assert losses[0] == losses[1]

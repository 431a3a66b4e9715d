"""Adjoints that evaluate the model again in the backward pass refuse if something changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gradients.checks import regression_tasks
from torch import Tensor, nn

import fewstep as fs

pytestmark = pytest.mark.usefixtures("double")


class Annealed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.dropout, self.head = nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 1)
        self.factor = 1.0
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(torch.tanh(self.factor * self.body(x) + self.shift)))


def write_rate(learner: fs.MetaLearner) -> None:
    with torch.no_grad():
        learner.rule.lr.mul_(2)


CHANGES: dict[str, Callable[[fs.MetaLearner], object]] = {
    "mode": lambda learner: learner.eval(),
    "attribute": lambda learner: setattr(learner.model, "factor", 2.0),
    "buffer written to": lambda learner: learner.model.shift.add_(1),
    "buffer exchanged": lambda learner: setattr(learner.model, "shift", torch.ones(())),
    "rate": write_rate,
}
ADJOINTS = [fs.Recomputed(), fs.Recomputed("forward"), fs.Implicit(2.0)]
CASES = [(a, c) for a in ADJOINTS for c in CHANGES if not (isinstance(a, fs.Implicit) and c == "rate")]


@pytest.mark.parametrize(("adjoint", "change"), CASES, ids=str)
@pytest.mark.parametrize("vectorize", [True, False])
def test_changes_before_the_backward_pass_are_refused(adjoint: fs.Adjoint, change: str, vectorize: bool) -> None:
    rate = nn.Parameter(torch.tensor(0.1)) if change == "rate" else 0.1
    learner = fs.MetaLearner(Annealed(), fs.mse, rule=fs.SGD(rate), steps=2, adjoint=adjoint, vectorize=vectorize)
    tasks = regression_tasks()[:1] if not vectorize else regression_tasks()
    learner.meta_loss(tasks).backward()
    loss = learner.meta_loss(tasks)
    CHANGES[change](learner)
    with pytest.raises(RuntimeError, match="has changed since|modified by an inplace operation"):
        loss.backward()


def test_rules_that_carry_their_state_between_tasks() -> None:
    model = nn.Linear(2, 1)
    rule = fs.CarriedAdam(dict(model.named_parameters()), 0.01)
    learner = fs.MetaLearner(model, fs.mse, rule=rule, steps=2, adjoint=fs.Recomputed(), vectorize=False)
    first, _ = learner.meta_loss(regression_tasks()[:1]), learner.meta_loss(regression_tasks()[:1])
    with pytest.raises(RuntimeError, match="a tensor of the model, the loss or the rule has changed"):
        first.backward()


def test_autocast_is_that_of_the_forward_pass() -> None:
    found = []
    for within in True, False:
        torch.manual_seed(0)
        learner = fs.maml(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).float(), fs.mse, 0.1)
        learner = fs.MetaLearner(
            learner.model, fs.mse, rule=fs.SGD(0.1), steps=3, adjoint=fs.Implicit(2.0), vectorize=False
        )
        torch.manual_seed(1)
        tasks = regression_tasks().to("cpu", torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            loss = learner.meta_loss(tasks[:1])
            if within:
                loss.backward()
        if not within:
            loss.backward()
        found.append([value.grad for value in learner.parameters()])
    torch.testing.assert_close(*found, rtol=0, atol=0)

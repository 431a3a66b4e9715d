"""Tensors in the tasks that require a gradient get it: example weights, distilled inputs, soft targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gradients.checks import SmoothNetwork, meta_gradient, regression_tasks
from torch import Tensor, nn

import fewstep as fs
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")

WAYS: dict[str, dict[str, Any]] = {
    "vmap": {"vectorize": True},
    "chunks": {"vectorize": True, "chunk": 2},
    "loop": {"vectorize": False},
    "recomputed": {"vectorize": True, "adjoint": fs.Recomputed()},
    "recomputed in a loop": {"vectorize": False, "adjoint": fs.Recomputed()},
    "recomputed, forward": {"vectorize": False, "adjoint": fs.Recomputed("forward")},
}


def weighted_tasks() -> Task:
    tasks = regression_tasks()
    return Task(Batch(tasks.support.x, tasks.support.y, 0.5 + torch.rand(3, 4)), tasks.query)


def with_part(tasks: Task, part: str, value: Tensor) -> Task:
    where, name = part.split(".")
    batch = getattr(tasks, where)
    parts = {"x": batch.x, "y": batch.y, "weight": batch.weight, name: value}
    return Task(*(Batch(**parts) if each == where else getattr(tasks, each) for each in ("support", "query")))


PARTS = ["support.weight", "support.x", "support.y", "query.x"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("way", WAYS)
def test_gradients_of_data_by_finite_differences(way: str, part: str) -> None:
    learner, tasks = fs.maml(SmoothNetwork(), fs.mse, 0.3, 2, **WAYS[way]), weighted_tasks()
    where, name = part.split(".")
    value = getattr(getattr(tasks, where), name).clone().requires_grad_()
    plain = meta_gradient(learner, tasks)
    came_of_parameters = meta_gradient(learner, with_part(tasks, part, value))
    for parameter, gradient in plain.items():
        torch.testing.assert_close(came_of_parameters[parameter], gradient)
    direction = torch.randn_like(value)
    with torch.no_grad():
        ends = [learner.meta_loss(with_part(tasks, part, value + e * direction)).item() for e in (1e-6, -1e-6)]
    slope = (ends[0] - ends[1]) / 2e-6
    assert abs(slope) > 1e-4
    assert (value.grad * direction).sum().item() == pytest.approx(slope, rel=1e-6)


def test_gradients_of_data_in_a_compiled_step() -> None:
    """Two meta-batches; the second uses what was compiled for the first."""
    net = nn.Linear(2, 1)
    compiled, eager = fs.maml(net, fs.mse, 0.3, compile=True), fs.maml(net, fs.mse, 0.3)
    for _ in range(2):
        tasks, found = weighted_tasks(), []
        for learner in (compiled, eager):
            weight = tasks.support.weight.clone().requires_grad_()
            given = with_part(tasks, "support.weight", weight)
            assert learner.meta_gradient(given).isfinite()
            found.append(weight.grad)
        assert found[1].abs().max() > 1e-4
        torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("vectorize", [True, False])
def test_gradients_of_a_tensor_that_the_data_were_computed_from(vectorize: bool) -> None:
    """Distilled images: one set of learned inputs for every task."""
    learner, tasks = fs.maml(SmoothNetwork(), fs.mse, 0.3, 2, vectorize=vectorize), regression_tasks()
    images = torch.randn(4, 2, requires_grad=True)

    def loss() -> Tensor:
        return learner.meta_loss(Task(Batch(images.expand(3, 4, 2), tasks.support.y), tasks.query))

    loss().backward()
    slopes = torch.zeros_like(images)
    with torch.no_grad():
        for i in range(images.numel()):
            flat, ends = images.view(-1), []
            for e in (1e-6, -2e-6):
                flat[i] += e
                ends.append(loss())
            flat[i] += 1e-6
            slopes.view(-1)[i] = (ends[0] - ends[1]) / 2e-6
    torch.testing.assert_close(images.grad, slopes, rtol=1e-6, atol=1e-8)


def test_gradients_of_a_list_of_tasks() -> None:
    learner, tasks = fs.maml(SmoothNetwork(), fs.mse, 0.3, 2), weighted_tasks()
    together = tasks.support.weight.clone().requires_grad_()
    learner.meta_loss(with_part(tasks, "support.weight", together)).backward()
    apart = [tasks.support.weight[i].clone().requires_grad_() for i in range(3)]
    learner.meta_loss([with_part(tasks[i], "support.weight", apart[i]) for i in range(3)]).backward()
    torch.testing.assert_close(torch.stack([each.grad for each in apart]), together.grad)


class LearnedLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.8, 0.3]))

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        error = model(batch.x) - batch.y
        return self.weight[0] * error.square().mean() + self.weight[1] * error.abs().pow(3).mean()


@pytest.mark.parametrize("way", WAYS)
def test_a_learned_loss_alone_may_be_learned(way: str) -> None:
    learner = fs.maml(SmoothNetwork(), fs.mse, 0.3, 2, learns=[], inner_loss=LearnedLoss(), **WAYS[way])
    assert [name for name, value in learner.named_parameters() if value.requires_grad] == ["inner_loss.weight"]
    tasks = regression_tasks()
    check = fs.check_gradients(learner, tasks, tolerance=1e-6)
    assert check.ok, check
    assert abs(check.groups[0].found[0]) > 1e-4
    came = meta_gradient(learner, tasks)
    assert came["inner_loss.weight"].abs().min() > 1e-5


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"learns=\[\] leaves nothing to learn"):
        fs.maml(SmoothNetwork(), fs.mse, 0.3, learns=[])


class FrozenBody(nn.Module):
    """A body in bfloat16 and a head in float64, as a pretrained network is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(2, 3).to(torch.bfloat16).requires_grad_(False)
        self.head = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x.to(torch.bfloat16)).double()))


class ComplexFirst(nn.Module):
    """Its first parameter is complex."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = nn.Parameter(torch.randn(2, dtype=torch.complex128))
        self.head = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.phase * x).abs())


@pytest.mark.parametrize("make", [FrozenBody, ComplexFirst])
def test_evaluation_does_not_round_the_targets(make: type[nn.Module]) -> None:
    learner, tasks = fs.maml(make(), fs.mse, 0.1, 2), regression_tasks()

    class Source:
        def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
            return tasks[:n]

    torch.testing.assert_close(fs.evaluate(learner, Source(), num_tasks=3).values, learner.score(tasks), rtol=0, atol=0)

"""Data that do not fit are refused, in any meta-batch, with a clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradients.checks import SmoothNetwork, regression_tasks
from torch import Tensor, nn

import fewstep as fs
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")


def careless(model: nn.Module, batch: Batch) -> Tensor:
    """Broadcasts, and ignores weights."""
    return (model(batch.x) - batch.y).square().mean()


def short_of_targets(task: Task) -> Task:
    return Task(Batch(task.support.x, task.support.y[:1]), task.query)


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("part", ["support", "query"])
@pytest.mark.parametrize("listed", [True, False])
def test_inputs_and_targets_of_different_lengths_are_refused(part: str, vectorize: bool, listed: bool) -> None:
    """``[n, 1]`` and ``[1, 1]`` would be broadcast by a careless loss."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch.x) - batch.y).square().mean()

    tasks = regression_tasks()
    short = Batch(tasks.support.x, tasks.support.y[:, :1])
    tasks = Task(short, tasks.query) if part == "support" else Task(tasks.support, short)
    learner = fs.maml(SmoothNetwork(), loss, 0.1, vectorize=vectorize)
    with pytest.raises(ValueError, match=rf"x, y and weight of the {part} set disagree in the number of examples"):
        learner.meta_loss([tasks[0], tasks[1]] if listed else tasks)


def test_weights_of_another_length_are_refused() -> None:
    tasks = regression_tasks()
    tasks = Task(Batch(tasks.support.x, tasks.support.y, torch.ones(3, 1)), tasks.query)
    with pytest.raises(ValueError, match="x, y and weight of the support set disagree"):
        fs.maml(SmoothNetwork(), fs.mse, 0.1).meta_loss(tasks)


@pytest.mark.parametrize("first_first", [True, False])
def test_lengths_in_a_later_list_are_checked(first_first: bool) -> None:
    learner = fs.maml(SmoothNetwork(), careless, 0.1)
    good, bad = regression_tasks()[0], short_of_targets(regression_tasks()[1])
    learner.meta_loss([good, good])
    with pytest.raises(ValueError, match="disagree in the number of examples"):
        learner.meta_loss([good, bad] if first_first else [good, good, bad])


class Sums(nn.Module):
    """Takes two inputs in a container."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs: Any) -> Tensor:
        return self.layer(inputs[0] + inputs[1])


@pytest.mark.parametrize("container", [lambda x: (x, x), lambda x: {0: x, 1: x}])
def test_lengths_of_inputs_in_a_container_are_checked(container: Callable[[Tensor], Any]) -> None:
    tasks = regression_tasks()
    inputs = [container(batch.x) for batch in (tasks.support, tasks.query)]
    fine = Task(Batch(inputs[0], tasks.support.y), Batch(inputs[1], tasks.query.y))
    assert fs.maml(Sums(), careless, 0.1).meta_loss(fine).isfinite()
    short = Task(Batch(inputs[0], tasks.support.y[:, :1]), fine.query)
    with pytest.raises(ValueError, match="disagree in the number of examples"):
        fs.maml(Sums(), careless, 0.1).meta_loss(short)


def padded() -> Task:
    return Task.stack([regression_tasks(1, shots, 5)[0] for shots in (2, 4)])


LATER: dict[str, Callable[[fs.MetaLearner], Any]] = {
    "in a meta-batch": lambda learner: learner.meta_loss(padded()),
    "to score": lambda learner: learner.score(padded()),
    "in a list": lambda learner: learner.meta_loss([padded()[0], padded()[1]]),
    "in a list, to score": lambda learner: learner.score([padded()[0], padded()[1]]),
    "to adapt to": lambda learner: learner.adapt(padded().support[0]),
}


@pytest.mark.parametrize("how", list(LATER))
def test_a_loss_that_ignores_padding_is_refused_everywhere(how: str) -> None:
    LATER[how](fs.maml(nn.Linear(2, 1), fs.mse, 0.1))
    with pytest.raises(ValueError, match="Padded examples"):
        LATER[how](fs.maml(nn.Linear(2, 1), careless, 0.1))


def test_padding_with_weights_seen_before_is_checked() -> None:
    tasks, learner = padded(), fs.maml(nn.Linear(2, 1), careless, 0.1)
    full = Batch(tasks.support.x, tasks.support.y, torch.ones(2, 4))
    for given in (Task(full, tasks.query), tasks):  # weights mean that there may be padding
        with pytest.raises(ValueError, match="Padded examples"):
            learner.meta_loss(given)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises((TypeError, ValueError), match="Task"):
        fs.maml(SmoothNetwork(), fs.mse, 0.1).meta_loss([])


def test_an_iterator_of_tasks_is_refused() -> None:
    tasks = regression_tasks()
    with pytest.raises(TypeError, match="list of tasks"):
        fs.maml(SmoothNetwork(), fs.mse, 0.1).meta_loss(tasks[i] for i in range(3))


def empty(batch: Batch) -> Batch:
    return Batch(batch.x[:, :0], batch.y[:, :0])


def test_an_empty_support_set_is_refused() -> None:
    tasks = regression_tasks()
    with pytest.raises(ValueError, match="support set has no examples"):
        fs.maml(SmoothNetwork(), fs.mse, 0.1).meta_loss(Task(empty(tasks.support), tasks.query))


def test_an_empty_query_set_is_refused() -> None:
    tasks = regression_tasks()
    with pytest.raises(ValueError, match="query"):
        fs.maml(SmoothNetwork(), fs.mse, 0.1).meta_loss(Task(tasks.support, empty(tasks.query)))


@pytest.mark.parametrize("steps", [-1, 1.5])
def test_invalid_numbers_of_steps_are_refused(steps: Any) -> None:
    learner, tasks = fs.maml(SmoothNetwork(), fs.mse, 0.1), regression_tasks()
    with pytest.raises(ValueError, match="steps must be"):
        learner.score(tasks, steps=steps)
    with pytest.raises(ValueError, match="steps must be"):
        learner.adapt(tasks.support[0], steps=steps)

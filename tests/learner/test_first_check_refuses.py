"""What the first check finds in query sets, tokens, random numbers and scheduled choices."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from gradients.checks import regression_tasks
from torch import Tensor, nn

import fewstep as fs
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")


def careless(model: nn.Module, batch: Batch) -> Tensor:
    return (model(batch.x) - batch.y).square().mean()


def task(shots: int, queries: int) -> Task:
    return regression_tasks(1, shots, queries)[0]


@pytest.mark.parametrize("vectorize", ["auto", True, False])
@pytest.mark.parametrize("sizes", [((4, 2), (4, 6)), ((4, 6), (4, 2)), ((2, 5), (6, 5)), ((6, 5), (2, 5))])
def test_a_loss_that_ignores_padding_is_refused(sizes: tuple[tuple[int, int], ...], vectorize: bool | str) -> None:
    tasks = Task.stack([task(*each) for each in sizes])
    with pytest.raises(ValueError, match=r"Padded examples \(Batch\.weight 0\) change the loss.*batch\.weight"):
        fs.maml(nn.Linear(2, 1), careless, 0.1, vectorize=vectorize).meta_loss(tasks)


def test_padding_in_a_later_meta_batch_is_checked() -> None:
    learner = fs.maml(nn.Linear(2, 1), careless, 0.1)
    learner.meta_loss(Task.stack([task(4, 5), task(4, 5)])).backward()
    with pytest.raises(ValueError, match="Padded examples"):
        learner.meta_loss(Task.stack([task(4, 2), task(4, 5)]))


@pytest.mark.parametrize("sizes", [((4, 2), (4, 6)), ((2, 5), (6, 5))])
def test_a_metric_that_ignores_padding_is_refused(sizes: tuple[tuple[int, int], ...]) -> None:
    tasks = Task.stack([task(*each) for each in sizes])
    learner = fs.maml(nn.Linear(2, 1), fs.mse, 0.1)
    learner.score(tasks)
    if sizes[0][1] != sizes[1][1]:
        with pytest.raises(ValueError, match="Padded examples"):
            learner.score(tasks, careless)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x).mean(-2))


def sentence(shots: int, queries: int) -> Task:
    def batch(n: int) -> Batch:
        return Batch(torch.arange(n * 3).view(n, 3) % 9, torch.randn(n, 1))

    return Task(batch(shots), batch(queries))


@pytest.mark.parametrize("sizes", [((4, 2), (4, 6)), ((2, 5), (6, 5))])
def test_padded_tokens_are_checked_too(sizes: tuple[tuple[int, int], ...]) -> None:
    """Integers are replaced by those of other examples."""

    def of_tokens(model: nn.Module, batch: Batch) -> Tensor:
        """Weights the errors, but not the mean of the predictions."""
        prediction = model(batch.x)
        return fs.mse(lambda x: prediction, batch) + prediction.mean().square()

    tasks = Task.stack([sentence(*each) for each in sizes])
    with pytest.raises(ValueError, match="Padded examples"):
        fs.maml(Tokens(), of_tokens, 0.1).meta_loss(tasks)
    learner = fs.maml(Tokens(), fs.mse, 0.1)
    alone = torch.stack([learner.meta_loss([each]) for each in (tasks[0], tasks[1])]).mean()
    torch.testing.assert_close(learner.meta_loss(tasks), alone)


# Random numbers that cannot be replayed

GENERATOR, NUMBERS = torch.Generator(), np.random.default_rng(0)
DRAWS: dict[str, Callable[[], float]] = {
    "numpy": lambda: float(np.random.rand()),
    "Python": random.random,
    "a generator of numpy": lambda: float(NUMBERS.random()),
    "a generator of PyTorch": lambda: float(torch.rand((), generator=GENERATOR)),
}


class Noisy(nn.Module):
    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.layer, self.draw = nn.Linear(2, 1), draw

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (0.5 + self.draw())


@pytest.mark.parametrize("name", DRAWS)
def test_recomputed_refuses_random_numbers_of_other_libraries(name: str) -> None:
    net = Noisy(DRAWS[name])
    with pytest.raises(ValueError, match=r"Recomputed replays.*adjoint=Unrolled"):
        fs.maml(net, fs.mse, 0.1, 2, adjoint=fs.Recomputed(), vectorize=False).meta_loss(regression_tasks())
    fs.maml(net, fs.mse, 0.1, 2, vectorize=False).meta_loss(regression_tasks()).backward()


def test_random_numbers_of_pytorch_are_replayed_by_recomputed() -> None:
    net, tasks = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 1)), regression_tasks()
    found = []
    for adjoint in (fs.Unrolled(), fs.Recomputed()):
        learner = fs.maml(net, fs.mse, 0.1, 3, adjoint=adjoint, vectorize=False)
        torch.manual_seed(1)
        learner.meta_loss(tasks).backward()
        found.append([value.grad for value in learner.parameters()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


# Scheduled choices


def test_an_invalid_scheduled_choice_is_refused_at_its_iteration() -> None:
    net = nn.Linear(2, 1)
    rule = fs.LearnedRates(net.named_parameters(), 0.1, per="tensor")
    adjoint = fs.Scheduled(lambda iteration: fs.Unrolled() if iteration < 5 else fs.Implicit())
    learner, tasks = fs.MetaLearner(net, fs.mse, rule=rule, steps=2, adjoint=adjoint), regression_tasks()
    learner.meta_loss(tasks).backward()
    learner.iteration = 5
    with pytest.raises(ValueError, match=r"Implicit gives no gradient to the rule's learned parameters"):
        learner.meta_loss(tasks)


def test_an_invalid_scheduled_objective_is_refused_at_its_iteration() -> None:
    objective = fs.Scheduled(lambda iteration: fs.query_loss if iteration < 5 else fs.multi_step_loss((0.5, 0.5)))
    learner = fs.imaml(nn.Linear(2, 1), fs.mse, 0.1, 2, objective=objective)
    learner.meta_loss(regression_tasks()).backward()
    learner.iteration = 5
    with pytest.raises(ValueError, match=r"Implicit differentiates the end of adaptation only"):
        learner.meta_loss(regression_tasks())


class Branching(nn.Module):
    """Takes another branch in training, or if the query set is larger."""

    def __init__(self, when: Callable[[nn.Module, Tensor], bool]) -> None:
        super().__init__()
        self.layer, self.when = nn.Linear(2, 1), when

    def forward(self, x: Tensor) -> Tensor:
        if self.when(self, x):
            x.mul_(0.5)
        return self.layer(x)


def test_training_is_checked_after_evaluation() -> None:
    learner = fs.maml(Branching(lambda module, x: module.training), fs.mse, 0.1, vectorize=False)
    tasks = regression_tasks()
    learner.eval().score(tasks)
    with pytest.raises(ValueError, match="writes to its input"):
        learner.train().meta_loss(tasks)


def test_errors_in_the_query_set_only_are_found() -> None:
    learner = fs.maml(Branching(lambda module, x: len(x) == 5), fs.mse, 0.1, vectorize=False)
    tasks = regression_tasks(shots=4, queries=5)
    before = tasks.query.x.clone()
    with pytest.raises(ValueError, match="writes to its input"):
        learner.meta_loss(tasks)
    assert torch.equal(tasks.query.x, before)


def test_an_operation_without_second_derivative_in_the_query_set_only_works() -> None:
    """The query loss is differentiated once."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        prediction = model(batch.x)
        return torch.cdist(prediction, batch.y).mean() if len(batch.x) == 5 else fs.mse(lambda x: prediction, batch)

    learner = fs.maml(nn.Linear(2, 1), loss, 0.1, 2, vectorize=False)
    assert fs.check_gradients(learner, regression_tasks(), directions=1).ok

"""The meta-learner: the results of adapt and score, and how tasks are batched."""

import copy
import io
import itertools

import pytest
import torch
from gradients.checks import SmoothNetwork, regression_tasks
from torch import nn

import fewstep as fs
from fewstep.learner import VMAP_LIMIT

pytestmark = pytest.mark.usefixtures("double")


class Named(nn.Module):
    """A network with an additional method, a buffer and a frozen layer."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(2, 3).requires_grad_(False)
        self.head = nn.Linear(3, 1)
        self.register_buffer("shift", torch.tensor(0.5))

    def forward(self, x):
        return self.head(torch.tanh(self.frozen(x) + self.shift))

    def double(self, x):
        return 2 * self(x)


def by_hand(model, support, lr, steps):
    """The inner loop with torch.optim, on a copy."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr)
    for _ in range(steps):
        optimizer.zero_grad()
        fs.mse(model, support).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder()])
@pytest.mark.parametrize("make", [Named, SmoothNetwork])
def test_adapt_equals_a_hand_written_inner_loop(make, adjoint):
    model, tasks = make(), regression_tasks()
    learner = fs.maml(model, fs.mse, 0.3, steps=2, adjoint=adjoint)
    for steps in (None, 0, 1, 7):
        adapted = learner.adapt(tasks.support[1], steps=steps)
        expected = by_hand(model, tasks.support[1], 0.3, 2 if steps is None else steps)
        for (name, ours), theirs in zip(adapted.named_parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, msg=name)


def test_adapt_returns_a_plain_module_of_the_users_class():
    model, tasks = Named(), regression_tasks()
    learner = fs.maml(model, fs.mse, 0.3, learns="head.weight")
    learner.eval()
    adapted = learner.adapt(tasks.support[0])
    assert type(adapted) is Named
    assert not adapted.training
    assert {name: value.requires_grad for name, value in adapted.named_parameters()} == {
        name: value.requires_grad for name, value in model.named_parameters()
    }
    assert all(value.is_leaf and value.grad is None for value in adapted.parameters())
    assert list(adapted.state_dict()) == list(model.state_dict())
    torch.testing.assert_close(adapted.double(tasks.query.x[0]), 2 * adapted(tasks.query.x[0]))
    twin = Named()
    twin.load_state_dict(adapted.state_dict())
    x = tasks.query.x[0]
    for other in (twin, copy.deepcopy(adapted)):
        assert torch.equal(other(x), adapted(x))
    fs.mse(adapted, tasks.query[0]).backward()
    torch.optim.SGD(adapted.parameters(), 0.1).step()
    assert not torch.equal(adapted(x), twin(x))


@pytest.mark.parametrize("choices", [{"vectorize": True}, {"vectorize": False}, {"vectorize": True, "chunk": 2}])
@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder(), fs.Implicit()])
def test_score_is_the_metric_after_every_step(adjoint, choices):
    learner = fs.maml(SmoothNetwork(), fs.mse, 0.3, steps=2, adjoint=adjoint, **choices)
    tasks = regression_tasks(count=5)

    def largest_error(model, batch):
        return (model(batch.x) - batch.y).abs().max()

    for metric, steps in ((None, None), (largest_error, None), (largest_error, 4), (fs.mse, 0)):
        scores = learner.score(tasks, metric, steps)
        expected = torch.stack(
            [
                torch.stack(
                    [
                        (metric or fs.mse)(learner.adapt(tasks.support[i], steps=k), tasks.query[i])
                        for k in range((2 if steps is None else steps) + 1)
                    ]
                )
                for i in range(5)
            ]
        )
        assert not scores.requires_grad
        torch.testing.assert_close(scores, expected.detach())


def test_inner_loss_that_differs_from_the_outer():
    def absolute(model, batch):
        return (model(batch.x) - batch.y).abs().mean()

    tasks = regression_tasks(count=1)
    learner = fs.maml(SmoothNetwork(), fs.mse, 0.3, steps=1, inner_loss=absolute)
    expected = fs.maml(learner.model, absolute, 0.3, steps=1).adapt(tasks.support[0])
    torch.testing.assert_close(learner.meta_loss(tasks), fs.mse(expected, tasks.query[0]))


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, model, batch):
        return self.scale * fs.mse(model, batch)


def test_two_losses_with_parameters_of_one_name():
    """The inner loss is learned, the outer one is not: otherwise its best value would be zero."""
    model, tasks = SmoothNetwork(), regression_tasks()
    learner = fs.maml(model, Scaled(3.0), 0.1, inner_loss=Scaled(2.0))
    torch.testing.assert_close(learner.meta_loss(tasks), 3 * fs.maml(model, fs.mse, 0.2).meta_loss(tasks))
    learner.meta_loss(tasks).backward()
    assert learner.inner_loss.scale.grad.abs() > 1e-6
    assert learner.loss.scale.grad is None


def test_meta_training_lowers_the_meta_loss():
    learner = fs.maml(fs.models.MLP(2, [8], 1, nn.Tanh), fs.mse, 0.1, 2)
    tasks = regression_tasks(count=6)
    optimizer = torch.optim.SGD(learner.parameters(), 0.05)
    losses = []
    for _ in range(20):
        loss = learner.meta_loss(tasks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(after < before for before, after in itertools.pairwise(losses))


def test_state_dict_and_copies():
    model, tasks = SmoothNetwork(), regression_tasks()
    learner = fs.meta_sgd(model, fs.mse, 0.3, 2)
    expected = learner.meta_loss(tasks)
    other = fs.meta_sgd(SmoothNetwork(), fs.mse, 0.1, 2)
    assert other.meta_loss(tasks) != expected
    stored = io.BytesIO()
    torch.save(learner.state_dict(), stored)
    stored.seek(0)
    other.load_state_dict(torch.load(stored, weights_only=True))
    twin = copy.deepcopy(learner)
    for same in (other, twin):
        torch.testing.assert_close(same.meta_loss(tasks), expected, rtol=0, atol=0)
    with torch.no_grad():
        twin.model.head.bias.add_(1.0)
    assert twin.meta_loss(tasks) != expected
    torch.testing.assert_close(learner.meta_loss(tasks), expected, rtol=0, atol=0)


def test_other_precision():
    learner, tasks = fs.meta_sgd(SmoothNetwork(), fs.mse, 0.3, 2), regression_tasks()
    expected = learner.meta_loss(tasks)
    came = learner.float().meta_loss(tasks.to(torch.float32))
    assert came.dtype == torch.float32
    torch.testing.assert_close(came.double(), expected, rtol=1e-4, atol=1e-5)


def test_auto_loops_over_large_tasks_and_vmaps_small_ones():
    """Under vmap the loss is called once for the support sets of all tasks, and once for their query sets."""

    def calls(width, examples):
        count = []

        def counted(model, batch):
            count.append(1)
            return fs.mse(model, batch)

        learner = fs.maml(fs.models.MLP(2, [width], 1), counted, 0.01)
        tasks = regression_tasks(count=4, shots=examples, queries=2)
        learner.meta_loss(tasks)
        count.clear()
        learner.meta_loss(tasks)
        return len(count)

    assert 8 * 8 * 4 < VMAP_LIMIT < 8 * 300 * 2000
    assert calls(8, 4) == 2
    assert calls(300, 2000) == 8


def test_the_first_check_draws_no_random_numbers():
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 1))
    tasks, learner = regression_tasks(), fs.maml(model, fs.mse, 0.1)
    values = []
    for _ in range(2):  # the first call makes the check, the second does not
        torch.manual_seed(3)
        values.append(learner.meta_loss(tasks).item())
    assert values[0] == values[1]

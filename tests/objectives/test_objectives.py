"""Losses of a task with and without padding, their errors, and the meta-objectives."""

import pytest
import torch
from gradients.checks import assert_same, meta_gradient, regression_tasks
from jaxtyping import TypeCheckError
from torch import nn

import fewstep as fs
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")


def identity(x):
    return x


def test_losses_by_their_definitions():
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(fs.mse(identity, Batch(x, y)), ((x - y) ** 2).sum() / 12)
    labels = torch.tensor([0, 2, 1, 1])
    right = torch.stack([row.exp()[label] / row.exp().sum() for row, label in zip(x, labels, strict=True)])
    torch.testing.assert_close(fs.cross_entropy(identity, Batch(x, labels)), -right.log().mean())
    logits = torch.tensor([[3.0, 1], [0, 1], [2, 0], [5, 4]])
    assert fs.accuracy(identity, Batch(logits, torch.tensor([0, 1, 1, 0]))).item() == 0.75


@pytest.mark.parametrize("loss", [fs.mse, fs.cross_entropy, fs.accuracy])
def test_a_weight_equals_repeating_an_example(loss):
    x = torch.randn(3, 4)
    y = torch.randn(3, 4) if loss is fs.mse else torch.tensor([0, int(x[1].argmax()), 3])
    weighted = loss(identity, Batch(x, y, torch.tensor([2.0, 1.0, 0.0])))
    repeated = loss(identity, Batch(x[[0, 0, 1]], y[[0, 0, 1]]))
    torch.testing.assert_close(weighted, repeated)


def ragged_tasks(loss):
    def batch(examples):
        y = torch.randn(examples, 3) if loss is fs.mse else torch.randint(3, (examples,))
        return Batch(torch.randn(examples, 2), y)

    return [Task(batch(2), batch(5)), Task(batch(7), batch(4))]


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder(), fs.Implicit()])
@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("loss", [fs.mse, fs.cross_entropy])
def test_padding_changes_nothing(loss, vectorize, adjoint):
    """Tasks of 2 and 7 shots stacked, against the mean over the two separate tasks."""
    tasks = ragged_tasks(loss)
    learner = fs.maml(fs.models.MLP(2, [4], 3, nn.Tanh), loss, 0.3, 2, adjoint=adjoint, vectorize=vectorize)
    singles = [Task.stack([task]) for task in tasks]
    values = torch.stack([learner.meta_loss(single) for single in singles])
    first, second = (meta_gradient(learner, single) for single in singles)
    stacked = Task.stack(tasks)
    torch.testing.assert_close(learner.meta_loss(stacked), values.mean())
    mean = {name: (first[name] + second[name]) / 2 for name in first}
    assert_same(meta_gradient(learner, stacked), mean, atol=1e-12)


@pytest.mark.parametrize("vectorize", [True, False])
def test_padded_accuracy(vectorize):
    tasks = ragged_tasks(fs.cross_entropy)
    learner = fs.maml(fs.models.MLP(2, [4], 3), fs.cross_entropy, 0.3, 2, vectorize=vectorize)
    scores = learner.score(Task.stack(tasks), fs.accuracy)
    for task, score in zip(tasks, scores, strict=True):
        torch.testing.assert_close(fs.accuracy(learner.adapt(task.support), task.query), score[-1])
        torch.testing.assert_close(fs.accuracy(learner.model, task.query), score[0])


@pytest.mark.parametrize(
    ("loss", "x", "y", "words"),
    [
        (fs.mse, torch.zeros(5, 1), torch.zeros(5), r"mse.*\(5, 1\).*\(5,\).*None\]"),
        (fs.mse, torch.zeros(5, 2), torch.zeros(5, 1), r"mse.*\(5, 2\).*\(5, 1\)"),
        (fs.cross_entropy, torch.zeros(5, 3), torch.zeros(5, 1, dtype=torch.int64), r"cross_entropy.*\(5, 1\)"),
        (fs.cross_entropy, torch.zeros(5, 3), torch.zeros(5), r"integer class labels.*float"),
        (fs.cross_entropy, torch.zeros(5, 3), torch.zeros(4, dtype=torch.int64), r"\(5, 3\) and \(4,\)"),
        (fs.cross_entropy, torch.zeros(5), torch.zeros(5, dtype=torch.int64), r"logits \[examples, classes\]"),
        (fs.accuracy, torch.zeros(5, 3, 2), torch.zeros(5, dtype=torch.int64), r"accuracy.*\(5, 3, 2\)"),
    ],
)
def test_shapes_that_would_be_broadcast(loss, x, y, words):
    with pytest.raises(ValueError, match=words):
        loss(identity, Batch(x, y))


def test_annotations_are_checked_in_tests():
    """``conftest.py`` has jaxtyping check the signatures of the losses."""
    with pytest.raises(TypeCheckError, match="batch"):
        fs.mse(identity, "no batch")


def path_of(*values):
    return [{"w": torch.tensor(value)} for value in values]


def squared(params, batch):
    return (params["w"] - batch).square()


def test_objectives_by_their_definitions():
    task, path = Task(torch.tensor(0.0), torch.tensor(1.0)), path_of(5.0, 3.0, 2.0)
    assert fs.query_loss(squared, path, task).item() == 1.0
    assert fs.multi_step_loss((0.25, 0.75))(squared, path, task).item() == 0.25 * 4 + 0.75 * 1
    assert fs.reptile_loss(squared, path, task).item() == 0.5 * 9


def test_annealed_weights():
    """MAML++: equal at first; an early weight falls by 1/(K·epochs) an epoch to 0.03/K at least; then only the last."""
    steps, epochs = 5, 50  # at the end the floor is above the line
    for epoch in range(epochs + 2):
        weights = fs.multi_step_loss.annealed(steps, epoch, epochs).weights
        early = 0.0 if epoch >= epochs else max(0.2 - 0.004 * epoch, 0.006)
        assert weights == pytest.approx((early,) * 4 + (1 - 4 * early,))
    assert fs.multi_step_loss.annealed(3, 0, 0).weights == (0.0, 0.0, 1.0)
    assert fs.multi_step_loss.annealed(1, 0, 10).weights == (1.0,)


def test_invalid_objectives_are_refused():
    tasks = regression_tasks()
    model = fs.models.MLP(2, [3], 1)
    learner = fs.maml(model, fs.mse, 0.1, 3, objective=fs.multi_step_loss((0.5, 0.5)))
    with pytest.raises(ValueError, match=r"2 weights but adaptation took 3 steps"):
        learner.meta_loss(tasks)
    with pytest.raises(ValueError, match=r"every weight is 0"):
        fs.maml(model, fs.mse, 0.1, 2, objective=fs.multi_step_loss((0, 0))).meta_loss(tasks)
    with pytest.raises(ValueError, match=r"at least one inner step.*steps=0"):
        fs.reptile(model, fs.mse, fs.GradientDescent(0.1), steps=0).meta_loss(tasks)

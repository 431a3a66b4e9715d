"""Metrics that compute with NumPy: outside of vmap, one task at a time, with the same numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import baselines, evaluation
from fewstep.tasks import Batch, Task


def tasks(count: int = 4, ways: int = 3) -> Task:
    y = torch.arange(ways).repeat(count, 2)
    means = torch.randn(count, ways, 5).repeat(1, 2, 1)
    return Task(Batch(means + 0.5 * torch.randn_like(means), y), Batch(means + 0.5 * torch.randn_like(means), y))


class Source:
    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        with torch.random.fork_rng():
            torch.manual_seed(0 if generator is None else generator.initial_seed())
            return tasks(n)


def learner(**choices: Any) -> fs.MetaLearner[Any]:
    return fs.maml(nn.Linear(5, 3), fs.cross_entropy, 0.5, steps=2, **choices)


def share_right(targets: np.ndarray, predictions: np.ndarray) -> float:
    assert isinstance(targets, np.ndarray)
    assert isinstance(predictions, np.ndarray)
    return float((targets == predictions).mean())


@pytest.mark.parametrize("vectorize", ["auto", True, False])
@pytest.mark.parametrize("function", [share_right, lambda t, p: np.float64(share_right(t, p))])
def test_a_function_of_arrays_gives_what_the_metric_of_tensors_gives(function: Any, vectorize: Any) -> None:
    batch, made = tasks(), learner(vectorize=vectorize)
    expected = made.score(batch, fs.accuracy, steps=3)
    for given in (batch, [batch[i] for i in range(4)]):
        torch.testing.assert_close(made.score(given, fs.array_metric(function), steps=3), expected)


def test_a_metric_of_model_and_batch_may_return_a_number() -> None:
    def right(model: nn.Module, batch: Batch) -> float:
        return (model(batch.x).argmax(-1) == batch.y).double().mean().item()

    batch, made = tasks(), learner()
    torch.testing.assert_close(made.score(batch, right), made.score(batch, fs.accuracy))
    made.score(batch, fs.accuracy)  # under vmap still
    result = fs.evaluate(made, Source(), num_tasks=5, metric=right)
    assert (result.metric, result.values.shape) == ("right", (5, 3))


def test_metrics_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    batch, made = tasks(), learner()
    f1 = fs.array_metric(metrics.f1_score, average="macro")
    scores = made.score(batch, f1)
    model = made.adapt(batch[1].support)
    expected = metrics.f1_score(batch[1].query.y.numpy(), model(batch[1].query.x).argmax(-1).numpy(), average="macro")
    assert scores[1, -1].item() == pytest.approx(expected)
    assert fs.evaluate(made, Source(), num_tasks=3, metric=f1).metric == "f1_score"
    likelihood = fs.array_metric(metrics.log_loss, predict=lambda logits: logits.softmax(-1))
    torch.testing.assert_close(made.score(batch, likelihood), made.score(batch, fs.cross_entropy))
    with pytest.raises(TypeError, match=r"f1_score is one of \(y_true, y_pred\)\. Pass fewstep.array_metric"):
        made.score(batch, metrics.f1_score)
    with pytest.raises(TypeError, match=r"f1_score must return a number; got ndarray of shape \(3,\).*average="):
        made.score(batch, fs.array_metric(metrics.f1_score, average=None))


def test_regression_takes_the_output_itself() -> None:
    made = fs.maml(fs.models.MLP(1, [8], 1), fs.mse, 0.01)
    batch = fs.tasks.Sinusoids(shots=5).sample(3)
    metric = fs.array_metric(lambda targets, predictions: np.square(targets - predictions).mean())
    torch.testing.assert_close(made.score(batch, metric), made.score(batch, fs.mse))


@pytest.mark.parametrize(
    "made",
    [
        lambda: baselines.PrototypicalNetwork(nn.Linear(5, 4), ways=3),
        lambda: baselines.FineTuned(nn.Linear(5, 4), nn.Linear(4, 3), 3, fs.GradientDescent(0.1), steps=2),
    ],
)
def test_baselines_take_them_too(made: Any) -> None:
    batch, baseline = tasks(), made()
    expected = baseline.score(batch, fs.accuracy)
    torch.testing.assert_close(baseline.score(batch, fs.array_metric(share_right)), expected)


def test_nil_takes_them_too() -> None:
    options: dict[str, Any] = {"source": _Fixed(tasks(3)), "features": lambda model, x: x, "num_tasks": 3}
    expected = evaluation.nil(learner(), **options)
    came = evaluation.nil(learner(), metric=fs.array_metric(share_right), **options)
    torch.testing.assert_close(came.values, expected.values)


class _Fixed:
    def __init__(self, batch: Task) -> None:
        self.batch = batch

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        return self.batch[:n]


def test_padded_examples_are_left_out() -> None:
    single = tasks(2)
    short = Task(single[0].support, single[0].query[:4])
    padded = Task.stack([short, single[1]])
    made = learner()
    torch.testing.assert_close(
        made.score(padded, fs.array_metric(share_right)), made.score([short, single[1]], fs.accuracy)
    )
    metric = fs.array_metric(share_right)
    with pytest.raises(ValueError, match="share_right cannot honour weights other than 0"):
        metric(nn.Linear(5, 3), Batch(torch.rand(2, 5), torch.tensor([0, 1]), torch.tensor([0.5, 1.0])))


def test_outputs_of_low_precision_are_converted() -> None:
    metric = fs.array_metric(lambda targets, predictions: float(predictions.sum()))
    assert metric(lambda x: x, Batch(torch.ones(2, dtype=torch.bfloat16), torch.ones(2))) == 2.0


def _per_example(model: nn.Module, batch: Batch) -> Tensor:
    return (model(batch.x).argmax(-1) == batch.y).float()


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (_per_example, r"must return a real scalar tensor or a number; got Tensor of shape \(6,\)"),
        (lambda model, batch: model(batch.x).sum().to(torch.complex64), "real scalar tensor"),
        (lambda model, batch: np.ones(3), r"got ndarray of shape \(3,\) and float64"),
        (lambda model, batch: None, "got NoneType"),
        (lambda model, batch: "0.5", "got str"),
        (3, "metric must be a function"),
    ],
)
@pytest.mark.parametrize("of", [learner, lambda: baselines.PrototypicalNetwork(nn.Linear(5, 4), ways=3)])
def test_metrics_that_cannot_work_are_refused(of: Any, metric: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        of().score(tasks(), metric)


def test_what_is_no_metric_of_arrays_is_refused() -> None:
    with pytest.raises(TypeError, match=r"for a metric of arrays.*fewstep.array_metric\(metric\)"):
        learner().score(tasks(), lambda targets, predictions: ((targets - predictions) ** 2).mean())
    with pytest.raises(TypeError, match="accuracy is already a metric of"):
        fs.array_metric(fs.accuracy)
    with pytest.raises(TypeError, match=r"expected a function of arrays.*got str"):
        fs.array_metric("f1")  # type: ignore[arg-type]
    metric = fs.array_metric(share_right)
    with pytest.raises(TypeError, match="output must be a tensor; got dict"):
        metric(lambda x: {"logits": x}, Batch(torch.rand(2), torch.rand(2)))  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match=r"expects a fewstep.Batch\(x, y\); got dict"):
        metric(lambda x: x, {"x": 1})  # type: ignore[arg-type]


def test_a_number_that_is_not_finite_is_kept() -> None:
    metric = fs.array_metric(lambda targets, predictions: math.nan)
    assert learner().score(tasks(), metric).isnan().all()

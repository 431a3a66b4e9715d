"""The mean and 95% confidence interval of a metric over test tasks, after every inner step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.arguments import check_seed, check_whole
from fewstep.evaluation.numbers import format_metric
from fewstep.learner import Learner
from fewstep.models.context import evaluation_mode
from fewstep.tasks import TaskSource, generator
from fewstep.tasks.batch import cast_like
from fewstep.tasks.source_check import check_source, is_source


@dataclass(frozen=True)
class Evaluation:
    """The result of [`evaluate`][fewstep.evaluate].

    Args:
        metric: the name of the metric.
        values: the metric of every task after 0, 1, ..., K inner steps, ``[tasks, K + 1]``.

    Examples:
        >>> print(Evaluation("mse", torch.tensor([[4.0, 1.0], [2.0, 1.0]])))
        mse over 2 tasks: 0 steps 3.0000 ± 1.9600, 1 step 1.0000 ± 0.0000
    """

    metric: str
    values: Tensor

    @property
    def tasks(self) -> int:
        """The number of test tasks."""
        return len(self.values)

    @property
    def steps(self) -> int:
        """The number of inner steps, K."""
        return self.values.shape[1] - 1

    @property
    def mean(self) -> list[float]:
        """The mean over tasks after 0, 1, ..., K steps."""
        return self.values.mean(0).tolist()

    @property
    def ci95(self) -> list[float]:
        """Half the width of the 95% confidence interval of each mean: 1.96·std/√tasks."""
        if self.tasks < 2:
            return [math.inf] * (self.steps + 1)
        return (1.96 * self.values.std(0) / math.sqrt(self.tasks)).tolist()

    def __str__(self) -> str:
        numbers = (format_metric(self.metric, m, c) for m, c in zip(self.mean, self.ci95, strict=True))
        found = (f"{k} step{'s' * (k != 1)} {number}" for k, number in enumerate(numbers))
        return f"{self.metric} over {self.tasks} tasks: " + ", ".join(found)


def evaluate(
    learner: Any,
    source: TaskSource,
    num_tasks: int = 600,
    steps: int | None = None,
    metric: Callable[..., Any] | None = None,
    seed: int = 0,
    *,
    stream: int = 2,
    meta_batch: int = 100,
    tasks: int | None = None,
) -> Evaluation:
    """Adapt to test tasks and compute a metric on their query sets, before adaptation and after every inner step.

    The learner is in evaluation mode during the call (no dropout). The tasks are a function of the seed, so that
    different learners are compared on the same tasks.

    Args:
        learner: a [`MetaLearner`][fewstep.MetaLearner], or another module with the same ``score`` method.
        source: the source of the test tasks.
        num_tasks: the number of test tasks; 600 in the papers.
        steps: the number of inner steps; as in training if not given.
        metric: ``metric(model, batch)``, which returns a scalar tensor or a number; the learner's own metric, or else
            its loss, if not given. [`array_metric`][fewstep.array_metric] makes one of a metric of scikit-learn.
        seed: the seed of the tasks.
        stream: 1 for validation tasks, 2 for test tasks.
        meta_batch: the number of tasks in memory at a time.
        tasks: the former name of ``num_tasks``; raises a ``DeprecationWarning``.

    Returns:
        The metric of every task and step, with means and confidence intervals.

    Raises:
        ValueError: ``num_tasks`` or ``meta_batch`` is less than 1, or the source ignores its generator or does not
            return as many tasks as it is asked for.
        TypeError: ``learner`` has no ``score`` method, ``source`` has no ``sample`` method, or the metric does not
            return a scalar.

    Examples:
        >>> import fewstep
        >>> learner = fewstep.maml(fewstep.models.MLP(1, [8], 1), fewstep.mse, inner_lr=0.01)
        >>> result = evaluate(learner, fewstep.tasks.Sinusoids(), num_tasks=20, steps=3)
        >>> result.values.shape
        torch.Size([20, 4])
    """
    if tasks is not None:
        warnings.warn("evaluate: tasks is now called num_tasks.", DeprecationWarning, stacklevel=2)
        num_tasks = tasks
    check_whole("evaluate", num_tasks=num_tasks, meta_batch=meta_batch)
    check_seed("evaluate", seed=seed, stream=stream)
    if not callable(getattr(learner, "score", None)):
        raise TypeError(
            f"evaluate: a learner has score(tasks, metric, steps); got {type(learner).__name__}. Make one from a "
            "model, such as fewstep.maml(model, loss, inner_lr=0.01)."
        )
    if not is_source(source):
        raise TypeError(
            f"evaluate: a task source has sample(n, generator); got {type(source).__name__}. For tasks that are there "
            "already, learner.score(tasks)."
        )
    check_source("evaluate", source, min(meta_batch, num_tasks))
    return measured(learner, source, num_tasks, steps, metric, seed, stream, meta_batch)


def measured(
    learner: Any,
    source: TaskSource,
    num_tasks: int,
    steps: int | None,
    metric: Callable[..., Any] | None,
    seed: int,
    stream: int,
    meta_batch: int = 100,
) -> Evaluation:
    """[`evaluate`][fewstep.evaluate] without its checks of the arguments."""
    parameters = list(learner.parameters())
    values = []
    with evaluation_mode(), _in_evaluation_mode(learner):
        for number, start in enumerate(range(0, num_tasks, meta_batch)):
            batch = source.sample(min(meta_batch, num_tasks - start), generator(seed, number, stream))
            values.append(learner.score(cast_like(batch, parameters), metric, steps).double().cpu())
    return Evaluation(metric_name(learner, metric), torch.cat(values))


def metric_name(learner: Any, metric: Callable[..., Any] | None) -> str:
    """The name of what is measured: the metric, or else the learner's own metric or loss."""
    measured = metric or getattr(learner, "metric", None) or getattr(learner, "loss", None)
    return str(getattr(measured, "__name__", "loss"))


@contextmanager
def _in_evaluation_mode(learner: nn.Module) -> Iterator[None]:
    """A context in which learners that ignore ``evaluation_mode`` are in evaluation mode; modes are restored."""
    if isinstance(learner, Learner):
        yield
        return
    modes = [(module, module.training) for module in learner.modules()]
    learner.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode

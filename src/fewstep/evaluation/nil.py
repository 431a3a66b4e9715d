"""NIL (no inner loop): classification by features, without a head (Raghu et al. 2019, section 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.arguments import check_function
from fewstep.evaluation.activations import activations
from fewstep.evaluation.evaluate import Evaluation, evaluate
from fewstep.learner import MetaLearner
from fewstep.learner.checks import metric_value
from fewstep.objectives import accuracy
from fewstep.tasks import Batch, Task, TaskSource

Features = str | Callable[[nn.Module, Any], Tensor]


def nil(
    learner: MetaLearner[Any],
    source: TaskSource,
    features: Features,
    num_tasks: int = 600,
    metric: Callable[..., Any] = accuracy,
    seed: int = 0,
    *,
    stream: int = 2,
    meta_batch: int = 100,
) -> Evaluation:
    """Compute the test accuracy without head and without adaptation (Raghu et al. 2019, section 5.1).

    The score of class c for a query image x is Σ cos(z(x), z(x_s)) over the support images s of class c, where z are
    the penultimate features at θ. Support and query sets go through the network separately, as in adaptation.

    Args:
        learner: the trained learner.
        source: the source of the test tasks; labels are integers.
        features: the name of the module whose flattened output is z, or a function ``(model, x) -> [examples, d]``.
        num_tasks: the number of test tasks.
        metric: a function of (model, batch), where the model returns scores ``[examples, classes]``.
        seed: the seed of the tasks.
        stream: 1 for validation tasks, 2 for test tasks.
        meta_batch: the number of tasks in memory at a time.

    Returns:
        An evaluation with a single column, since there are no inner steps.

    Raises:
        ValueError: the support labels are not integers ``[examples]``.

    Examples:
        >>> import torch, fewstep
        >>> class Quadrants:
        ...     def sample(self, n, generator=None):
        ...         y = torch.arange(4).expand(n, -1)
        ...         x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]]).expand(n, -1, -1)
        ...         return fewstep.tasks.Task(Batch(x, y), Batch(3 * x, y))
        >>> learner = fewstep.maml(torch.nn.Linear(2, 4), fewstep.cross_entropy, inner_lr=0.1)
        >>> print(nil(learner, Quadrants(), features=lambda model, x: x, num_tasks=2))
        accuracy over 2 tasks: 0 steps 100.00% ± 0.00
    """
    if not isinstance(features, str):
        check_function("nil", "the name of a module or a function of (model, x)", features=features)
    return evaluate(
        _WithoutHead(learner, features), source, num_tasks, 0, metric, seed, stream=stream, meta_batch=meta_batch
    )


class _WithoutHead(nn.Module):
    """A learner that classifies by comparison with the support set."""

    def __init__(self, learner: MetaLearner[Any], features: Features) -> None:
        super().__init__()
        self.learner, self.features = learner, features
        self.training = learner.training

    def score(self, tasks: Task, metric: Callable[..., Any], steps: int | None = None) -> Tensor:
        return torch.stack([self._one(tasks[i], metric) for i in range(len(tasks))])[:, None]

    def _one(self, task: Task, metric: Callable[..., Any]) -> Tensor:
        model = self.learner.adapt(task.support, steps=0)
        classify = self._classifier(model, task.support)
        with torch.no_grad():
            return metric_value(metric(classify, task.query), task.query.y.device)

    def _classifier(self, model: nn.Module, support: Batch) -> Callable[[Any], Tensor]:
        if support.y.ndim != 1 or support.y.is_floating_point():
            raise ValueError(
                f"nil expects integer class labels [examples]; got {tuple(support.y.shape)} of {support.y.dtype}."
            )
        with torch.no_grad():
            known = self._directions(model, support.x)
        labels = functional.one_hot(support.y).to(known.dtype)
        if support.weight is not None:
            labels = labels * support.weight[:, None]
        return lambda x: self._directions(model, x) @ known.T @ labels

    def _directions(self, model: nn.Module, x: Any) -> Tensor:
        if isinstance(self.features, str):
            z = activations(model, [self.features], x)[self.features]
        else:
            z = self.features(model, x)
        return functional.normalize(z.flatten(1), dim=1)

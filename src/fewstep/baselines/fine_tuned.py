"""Fine-tuning a new head on frozen features: the papers' "fine-tuning" row, Baseline and Baseline++."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.adaptation import Rule
from fewstep.baselines.distances import cosine
from fewstep.baselines.labels import check_labels, check_padding, check_tasks
from fewstep.learner import MetaLearner
from fewstep.learner.checks import check_model
from fewstep.learner.each_task import EachTask
from fewstep.objectives import cross_entropy
from fewstep.tasks import Batch, Task


class FineTuned(nn.Module):
    """A new head is fitted to the support features of each task by cross-entropy (Chen et al. 2019, section 3).

    The encoder is not changed. Each task starts from the same head, the one given. With ``nn.Linear`` this is the
    paper's Baseline, with [`CosineHead`][fewstep.baselines.CosineHead] its Baseline++. The whole support set is in
    every step, where the paper draws batches of 4 from it. To train the encoder, give this to
    [`PretrainedClassifier`][fewstep.baselines.PretrainedClassifier].

    Support and query go through the encoder apart, since the head is fitted before there are queries.

    Args:
        encoder: images to feature vectors ``[n, d]``; it is copied.
        head: feature vectors to logits ``[n, ways]``; it is copied.
        ways: classes of a task.
        rule: one fitting step, such as [`GradientDescent`][fewstep.GradientDescent].
        steps: fitting steps if ``adapt`` and ``score`` are not told; 100 in the paper.

    Examples:
        >>> from fewstep import GradientDescent
        >>> learner = FineTuned(nn.Flatten(), nn.Linear(4, 5), ways=5, rule=GradientDescent(0.1))
        >>> learner.adapt(Batch(torch.randn(5, 4), torch.arange(5)), steps=3)(torch.randn(2, 4)).shape
        torch.Size([2, 5])
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, ways: int, rule: Rule, steps: int = 100) -> None:
        super().__init__()
        check_model(encoder)
        if ways < 2:
            raise ValueError(f"ways must be at least 2; got {ways}.")
        self.encoder, self.ways, self.loss = copy.deepcopy(encoder), ways, cross_entropy
        self.fitting = MetaLearner(head, cross_entropy, rule=rule, steps=steps).requires_grad_(False)
        self._each = EachTask()

    def adapt(self, support: Batch, steps: int | None = None) -> nn.Module:
        """The encoder with a head fitted to one task's support set."""
        if isinstance(support, Task):
            raise TypeError("adapt expects the support set of one task; got a Task. Pass task.support.")
        check_labels(support, self.ways, "support", axes=1, every_class=True)
        check_padding(self, support)
        head = self.fitting.adapt(self._features(support), steps)
        return nn.Sequential(copy.deepcopy(self.encoder), head)

    def score(self, tasks: Task, metric: Callable[..., Any] | None = None, steps: int | None = None) -> Tensor:
        """As [`score`][fewstep.MetaLearner.score]: a metric after 0, 1, … fitting steps, ``[tasks, steps + 1]``."""
        check_tasks(tasks, self.ways)
        check_padding(self, tasks.support, tasks.query)
        with torch.no_grad():
            features = self._each(lambda task: Task(self._features(task.support), self._features(task.query)), tasks)
        return self.fitting.score(features, metric, steps)

    def _features(self, batch: Batch) -> Batch:
        with torch.no_grad():
            return Batch(self.encoder(batch.x), batch.y, batch.weight)


class CosineHead(nn.Module):
    """Logits s·cos(f, w_k): a classifier that compares directions only (Baseline++ of Chen et al. 2019, section 3).

    The w_k start at length 1. It makes no difference to the logits, but a gradient step turns a longer w_k less.

    Args:
        features: length of the feature vectors.
        classes: number of classes.
        scale: s; a cosine alone cannot make softmax confident.

    Examples:
        >>> CosineHead(8, 5)(torch.randn(3, 8)).abs().amax() <= 10
        tensor(True)
    """

    def __init__(self, features: int, classes: int, scale: float = 10.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(functional.normalize(torch.randn(classes, features), dim=-1))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * cosine(x, self.weight)

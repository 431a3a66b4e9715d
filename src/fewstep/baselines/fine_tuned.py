"""Fine-tuning of a new head on frozen features: the row "fine-tuning" of several papers, Baseline and Baseline++."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.adaptation import Rule
from fewstep.arguments import check_number, check_whole
from fewstep.baselines.distances import cosine
from fewstep.baselines.labels import check_labels, check_padding, check_tasks
from fewstep.learner import MetaLearner
from fewstep.learner.checks import check_model
from fewstep.learner.each_task import EachTask
from fewstep.objectives import cross_entropy
from fewstep.tasks import Batch, Task


class FineTuned(nn.Module):
    """A classifier that fits a new head to the support features of each task (Chen et al. 2019, section 3).

    The head is fitted by cross-entropy, and starts from ``head`` for every task; the encoder does not change. With
    ``nn.Linear`` this is the paper's Baseline, with [`CosineHead`][fewstep.baselines.CosineHead] its Baseline++. Every
    step uses the whole support set; the paper draws batches of 4. To train the encoder, pass this learner to
    [`PretrainedClassifier`][fewstep.baselines.PretrainedClassifier].

    Support and query sets go through the encoder separately.

    Args:
        encoder: maps images to feature vectors ``[n, d]``; it is copied.
        head: maps feature vectors to logits ``[n, ways]``; it is copied.
        ways: the number of classes of a task.
        rule: the rule of one fitting step, such as [`GradientDescent`][fewstep.GradientDescent].
        steps: the default number of fitting steps; 100 in the paper.

    Raises:
        ValueError: ``ways`` is less than 2.

    Examples:
        >>> from fewstep import GradientDescent
        >>> learner = FineTuned(nn.Flatten(), nn.Linear(4, 5), ways=5, rule=GradientDescent(0.1))
        >>> learner.adapt(Batch(torch.randn(5, 4), torch.arange(5)), steps=3)(torch.randn(2, 4)).shape
        torch.Size([2, 5])
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, ways: int, rule: Rule, steps: int = 100) -> None:
        super().__init__()
        check_model(encoder)
        check_whole("FineTuned", 2, ways=ways)
        self.encoder, self.ways, self.loss = copy.deepcopy(encoder), ways, cross_entropy
        self.fitting = MetaLearner(head, cross_entropy, rule=rule, steps=steps).requires_grad_(False)
        self._each = EachTask()

    def adapt(self, support: Batch, steps: int | None = None) -> nn.Module:
        """Return the encoder with a head fitted to one task's support set.

        The module is in the mode of the learner (``learner.training``); before predictions with dropout, call
        ``.eval()`` on either.

        Args:
            support: the support set of a single task, without task axis.
            steps: the number of fitting steps; that of the constructor if not given.

        Raises:
            TypeError: a whole task was passed.
            ValueError: labels are out of range, or a class has no example.
        """
        if isinstance(support, Task):
            raise TypeError("adapt expects the support set of one task; got a Task. Pass task.support.")
        check_labels(support, self.ways, "support", axes=1, every_class=True)
        check_padding(self, support)
        head = self.fitting.adapt(self._features(support), steps)
        return nn.Sequential(copy.deepcopy(self.encoder), head).train(self.training)

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
    """A head with logits s·cos(f, w_k) (Baseline++ of Chen et al. 2019, section 3).

    The w_k are initialised with length 1. Their length does not change the logits, but a gradient step rotates a longer
    w_k by a smaller angle.

    Args:
        features: the length of the feature vectors.
        classes: the number of classes.
        scale: the factor s; without it, softmax probabilities stay close to uniform.

    Examples:
        >>> CosineHead(8, 5)(torch.randn(3, 8)).abs().amax() <= 10
        tensor(True)
    """

    def __init__(self, features: int, classes: int, scale: float = 10.0) -> None:
        super().__init__()
        check_whole("CosineHead", features=features, classes=classes)
        check_number("CosineHead", 0, above=True, scale=scale)
        self.weight = nn.Parameter(functional.normalize(torch.randn(classes, features), dim=-1))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * cosine(x, self.weight)

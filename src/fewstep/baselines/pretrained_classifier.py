"""Classification over all training classes, and a few-shot method on the learned features at test."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fewstep.arguments import check_module, check_whole
from fewstep.baselines.episodic import EpisodicLearner
from fewstep.baselines.fine_tuned import FineTuned
from fewstep.baselines.labels import check_labels
from fewstep.learner.each_task import EachTask
from fewstep.objectives import cross_entropy
from fewstep.tasks import Batch, Task


class PretrainedClassifier(nn.Module):
    """A few-shot method whose encoder is trained to classify all training classes (Chen et al. 2019, Figure 1).

    ``meta_loss`` takes batches over all classes, such as those of [`ClassBatches`][fewstep.baselines.ClassBatches].
    ``adapt`` and ``score`` take few-shot tasks, and are those of the few-shot method. The rows of the papers are

    - *fine-tuning*, Baseline: ``FineTuned`` with ``nn.Linear``, and ``nn.Linear`` as the head;
    - Baseline++: ``FineTuned`` with ``CosineHead``, and ``CosineHead`` as the head;
    - *nearest neighbour*: ``NearestNeighbour``, and ``nn.Linear`` as the head.

    Args:
        few_shot: the method at test, whose encoder is trained.
        head: maps feature vectors to logits ``[n, classes]`` in training; it is copied.
        classes: the number of training classes.

    Examples:
        >>> import torch
        >>> from fewstep.baselines import NearestNeighbour
        >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 8))
        >>> learner = PretrainedClassifier(NearestNeighbour(encoder, ways=5), nn.Linear(8, 64), classes=64)
        >>> batch = Batch(torch.randn(1, 16, 4), torch.randint(64, (1, 16)))
        >>> learner.meta_loss(Task(batch, batch)).backward()
    """

    def __init__(self, few_shot: EpisodicLearner | FineTuned, head: nn.Module, classes: int) -> None:
        super().__init__()
        if not isinstance(few_shot, (EpisodicLearner, FineTuned)):
            raise TypeError(
                f"PretrainedClassifier: few_shot must be a few-shot method of fewstep.baselines, such as "
                f"NearestNeighbour(encoder, ways=5); got {type(few_shot).__name__}."
            )
        check_module("PretrainedClassifier", head=head)
        check_whole("PretrainedClassifier", 2, classes=classes)
        self.few_shot, self.head, self.classes = few_shot, copy.deepcopy(head), classes
        self.loss = few_shot.loss
        self._each = EachTask()

    def meta_loss(self, tasks: Task) -> Tensor:
        """Compute the cross-entropy over all classes on the query batches.

        Raises:
            ValueError: labels are not from 0 to classes − 1, or shapes differ.
        """
        check_labels(tasks.query, self.classes, "query", axes=2)
        return self._each.mean(lambda task: cross_entropy(self._logits, task.query), tasks, self.parameters())

    def adapt(self, support: Batch, steps: int | None = None) -> nn.Module:
        """Adapt the few-shot method to the support set of one task; the module is in the mode of the learner."""
        return self.few_shot.adapt(support, steps)

    def score(self, tasks: Task, metric: Callable[..., Any] | None = None, steps: int | None = None) -> Tensor:
        """Compute a metric of the few-shot method on the query set of each task."""
        return self.few_shot.score(tasks, metric, steps)

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.few_shot.encoder(x))
        if logits.shape != (len(x), self.classes):
            raise ValueError(
                f"The head must return logits [{len(x)}, {self.classes}] (classes={self.classes}); "
                f"got shape {tuple(logits.shape)}."
            )
        return logits

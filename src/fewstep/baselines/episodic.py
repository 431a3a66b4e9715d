"""The base of metric- and memory-based learners, which classify queries given a support set without inner steps."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.adaptation.random_numbers import replayed
from fewstep.arguments import check_whole
from fewstep.baselines.labels import check_labels, check_padding, check_tasks
from fewstep.learner.checks import check_metric, check_model, metric_value
from fewstep.learner.each_task import EachTask
from fewstep.tasks import Batch, Task

Logits = Float[Tensor, "queries ways"]
"""A number per query and class; the largest of a row is the prediction."""


class EpisodicLearner(nn.Module, ABC):
    """A learner that classifies queries as a function of the support set, without inner steps.

    It is trained on tasks like those at test (Vinyals et al. 2016, section 2.2). It has the protocol of
    [`MetaLearner`][fewstep.MetaLearner], so that [`fit`][fewstep.fit] and [`evaluate`][fewstep.evaluate] accept it; as
    it has no inner steps, ``score`` returns one column.

    The support and query examples of a task go through the encoder together, without those of other tasks. Batch
    normalisation then uses the statistics of the task, which is transductive, as MAML is with the paper's batch norm.

    Args:
        encoder: any ``nn.Module`` that maps images ``[n, ...]`` to features; it is copied.
        ways: the number of classes of a task; labels are 0, ..., ways − 1.
        loss: ``loss(model, batch) -> scalar``, where the model is an
            [`AdaptedClassifier`][fewstep.baselines.AdaptedClassifier].
    """

    def __init__(self, encoder: nn.Module, ways: int, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        check_model(encoder)
        check_whole(type(self).__name__, 2, ways=ways)
        self.encoder = copy.deepcopy(encoder)
        self.ways, self.loss = ways, loss
        self._each = EachTask()

    @abstractmethod
    def classify(self, support: Batch, x: Tensor) -> Logits:
        """Logits of the queries ``x`` of one task, ``[queries, ...]``, given its support set."""

    def meta_loss(self, tasks: Task) -> Tensor:
        """Compute the loss on the query sets, averaged over the tasks of a meta-batch.

        Raises:
            ValueError: labels are out of range, a class has no support example, or shapes differ.
        """
        self._check(tasks)
        return self._each.mean(self._on_query(self.loss), tasks, self.parameters())

    def score(self, tasks: Task, metric: Callable[..., Any] | None = None, steps: int | None = None) -> Tensor:
        """Compute a metric on the query set of each task, ``[tasks, 1]``; the loss if not given.

        Raises:
            TypeError: the metric is not a function of (model, batch), or does not return a scalar.
            ValueError: ``steps`` is neither ``None`` nor 0, or as ``meta_loss``.
        """
        check_no_steps(self, steps)
        if metric is not None:
            check_metric(metric)
        self._check(tasks)
        with torch.no_grad():
            one = self._on_query(metric or self.loss)
            with replayed():
                numbers = metric is not None and not isinstance(one(tasks[0]), Tensor)
            each, device = EachTask(vectorize=False) if numbers else self._each, tasks.query.y.device
            return each(lambda task: metric_value(one(task), device), tasks)[:, None]

    def adapt(self, support: Batch, steps: int | None = None) -> AdaptedClassifier:
        """Return a module that maps query images ``[n, ...]`` to logits ``[n, ways]``; it holds a copy of the learner.

        The module is in the mode of the learner (``learner.training``); before predictions with dropout, call
        ``.eval()`` on either.

        Args:
            support: the support set of a single task, without task axis.
            steps: ``None`` or 0, since there are no inner steps.
        """
        check_no_steps(self, steps)
        if isinstance(support, Task):
            raise TypeError("adapt expects the support set of one task; got a Task. Pass task.support.")
        check_labels(support, self.ways, "support", axes=1, every_class=True)
        check_padding(self, support)
        return AdaptedClassifier(copy.deepcopy(self), support)

    def embed(self, support: Batch, x: Tensor, axes: int = 2) -> tuple[Tensor, Tensor]:
        """Encode support and queries together; ``axes`` is 2 for feature vectors, and 4 for feature maps."""
        together = torch.cat([support.x, x])
        features = self.encoder(together)
        if features.ndim != axes or len(features) != len(together):
            wanted = "feature vectors [n, d] (end it with nn.Flatten())" if axes == 2 else "feature maps [n, C, H, W]"
            raise ValueError(
                f"{type(self).__name__} needs an encoder that returns {wanted}; "
                f"got shape {tuple(features.shape)} for {len(together)} images."
            )
        return features[: len(support.x)], features[len(support.x) :]

    def _check(self, tasks: Task) -> None:
        check_tasks(tasks, self.ways)
        check_padding(self, tasks.support, tasks.query)

    def _on_query(self, metric: Callable[..., Any]) -> Callable[[Task], Any]:
        """The metric of one task."""
        return lambda task: metric(AdaptedClassifier(self, task.support), task.query)


class AdaptedClassifier(nn.Module):
    """An episodic learner with the support set of a task, which maps queries ``[n, ...]`` to logits ``[n, ways]``.

    The support set is stored in buffers, so that ``to`` and ``state_dict`` include it.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None

    def __init__(self, learner: EpisodicLearner, support: Batch) -> None:
        super().__init__()
        self.learner, self.training = learner, learner.training
        for name in ("x", "y", "weight"):
            self.register_buffer(name, getattr(support, name))

    @property
    def support(self) -> Batch:
        """The support set."""
        return Batch(self.x, self.y, self.weight)

    def forward(self, x: Tensor) -> Logits:
        if x.shape[1:] != self.x.shape[1:]:
            raise ValueError(
                f"Queries must have the shape of the support images, [n, {', '.join(map(str, self.x.shape[1:]))}]; "
                f"got shape {tuple(x.shape)}."
            )
        return self.learner.classify(self.support, x)


def check_no_steps(learner: Any, steps: int | None) -> None:
    """Raise if inner steps are requested of a learner that has none."""
    if steps is not None and steps != 0:
        raise ValueError(f"{type(learner).__name__} has no inner steps; got steps={steps}. Omit steps, or pass 0.")

"""Validation while training: always on the same tasks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.adaptation.random_numbers import replayed
from fewstep.evaluation.evaluate import Evaluation, measured, metric_name
from fewstep.objectives import accuracy
from fewstep.parallel import alone
from fewstep.tasks import Task, TaskSource


class ValidationStopped(Exception):  # noqa: N818 - says what happened
    """A validation was ended before its last tasks."""


@dataclass(frozen=True)
class Validation:
    """When and on what a learner is validated.

    Args:
        learner: the learner.
        source: where validation tasks come from; no validation if `None`.
        every: iterations between validations. The last iteration is always validated.
        num_tasks: number of tasks.
        steps: inner steps; as in training if `None`.
        metric: what is measured; the learner's own metric or loss if `None`.
        maximize: whether larger is better. If `None`: true for accuracy, and for learners that say so.
        seed: seed of the tasks.
    """

    learner: Any
    source: TaskSource | None
    every: int
    num_tasks: int
    steps: int | None
    metric: Callable[..., Tensor] | None
    maximize: bool | None
    seed: int

    def is_due(self, done: int, iterations: int) -> bool:
        """Whether the learner is validated after `done` of `iterations` iterations."""
        return self.source is not None and (done % self.every == 0 or done == iterations)

    def run(self, num_tasks: int | None = None, stops: Callable[[], object] = bool) -> Evaluation:
        """Evaluates the learner on the validation tasks.

        Args:
            num_tasks: number of tasks, if not all.
            stops: called between parts of the tasks.

        Raises:
            ValidationStopped: `stops` returned something true.
        """
        assert self.source is not None
        tasks = self.num_tasks if num_tasks is None else num_tasks
        source = _Stoppable(self.source, stops)
        return measured(self.learner, source, tasks, self.steps, self.metric, self.seed, stream=1)

    def rehearse(self, num_tasks: int) -> None:
        """Evaluates for its time only: random numbers are drawn as if it had not been."""
        with replayed(), alone():
            self.run(num_tasks)

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether a result is better than the best one before; NaN never is, and any number is better than NaN."""
        if math.isnan(value):
            return False
        if best is None or math.isnan(best):  # older runs may have NaN
            return True
        return value > best if self._larger_is_better else value < best

    @property
    def _larger_is_better(self) -> bool:
        if self.maximize is None:
            return self.metric is accuracy or bool(getattr(self.learner, "maximize", False))
        return self.maximize

    @property
    def metric_name(self) -> str:
        """The name of what is measured."""
        return metric_name(self.learner, self.metric)


@dataclass(frozen=True)
class _Stoppable:
    """A source that ends a validation when it is asked for tasks and should stop."""

    source: TaskSource
    stops: Callable[[], object]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        if self.stops():
            raise ValidationStopped
        return self.source.sample(n, generator)

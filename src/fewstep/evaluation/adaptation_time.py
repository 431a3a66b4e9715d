"""The time to adapt to a new task."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from fewstep.tasks import TaskSource, generator
from fewstep.tasks.batch import cast_like

_WARM_UP = 3


def adaptation_seconds(
    learner: Any, source: TaskSource, steps: int | None = None, num_tasks: int = 20, seed: int = 0
) -> float | None:
    """Measure the time from a support set to predictions for the query set: the median over tasks, in seconds.

    Tasks are processed one at a time. Predictions are included, since methods without inner steps process the support
    set only when they classify.

    Args:
        learner: an object with ``adapt(support, steps) -> module``.
        source: the source of the tasks. No predictions are made where queries have no ``x``, as in reinforcement
            learning.
        steps: the number of inner steps; as in training if not given.
        num_tasks: the number of timed tasks, after three that are not timed.
        seed: the seed of the test tasks.

    Returns:
        The median time in seconds; ``None`` if adaptation diverges on every task.

    Examples:
        >>> import fewstep
        >>> learner = fewstep.maml(fewstep.models.MLP(1, [8], 1), fewstep.mse, inner_lr=0.01)
        >>> 0 < adaptation_seconds(learner, fewstep.tasks.Sinusoids(), steps=3, num_tasks=5) < 60
        True
    """
    drawn = cast_like(source.sample(_WARM_UP + num_tasks, generator(seed, 0, 2)), learner.parameters())
    times = []
    training = learner.training
    learner.eval()
    try:
        for i in range(len(drawn)):
            task = drawn[i]
            began = time.perf_counter()
            try:
                model = learner.adapt(task.support, steps)
            except ValueError:  # the adapted parameters are not finite
                continue
            if hasattr(task.query, "x"):
                with torch.no_grad():
                    model(task.query.x).cpu()  # synchronises with the device
            if i >= _WARM_UP:
                times.append(time.perf_counter() - began)
    finally:
        learner.train(training)
    return statistics.median(times) if times else None

"""How long a new task takes at test."""

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
    """Seconds from a support set to predictions for the query set, one task at a time: the median over tasks.

    Predictions are part of it, as methods without inner steps look at the support set only when they classify.

    Args:
        learner: anything with ``adapt(support, steps) -> module``.
        source: tasks; where queries have no ``x`` (in reinforcement learning) there are no predictions to be made.
        steps: inner steps; as in training if not given.
        num_tasks: how many are timed, after three that are not.
        seed: of the tasks, which are test tasks.

    Returns:
        ``None`` if adaptation diverges on every task.

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
            except ValueError:  # no finite parameters: nothing to predict with
                continue
            if hasattr(task.query, "x"):
                with torch.no_grad():
                    model(task.query.x).cpu()  # waits for the device
            if i >= _WARM_UP:
                times.append(time.perf_counter() - began)
    finally:
        learner.train(training)
    return statistics.median(times) if times else None

"""Checks of the arguments of a meta-learner of policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fewstep.arguments import check_attributes, check_module, check_number
from fewstep.learner.checks import check_loss
from fewstep.rl.environment_tasks import EnvironmentTask
from fewstep.rl.rollouts import Rollouts
from fewstep.tasks import Task


def check_policy(policy: Any, rollouts: Any, test_scales: Any, inner_loss: Any) -> None:
    """Raise if an argument of [`MetaPolicy`][fewstep.rl.MetaPolicy] is of another kind or out of range."""
    check_module("MetaPolicy", policy=policy)
    if not isinstance(rollouts, Rollouts):
        raise TypeError(
            f"MetaPolicy: rollouts must be fewstep.rl.Rollouts(environment); got {type(rollouts).__name__}."
        )
    if not isinstance(test_scales, Sequence) or not test_scales:
        raise ValueError("test_scales must contain at least one factor; got none. Use (1.0,) for no scaling.")
    check_number("MetaPolicy", 0, **{f"test_scales[{place}]": scale for place, scale in enumerate(test_scales)})
    check_loss(inner_loss, "inner_loss")


def check_learner(owner: str, learner: Any) -> None:
    """Raise unless a learner samples episodes, as [`MetaPolicy`][fewstep.rl.MetaPolicy] does."""
    check_attributes(owner, "a fewstep.rl.MetaPolicy", ("collect", "rollouts"), learner=learner)


def environment_tasks(tasks: Any) -> EnvironmentTask:
    """The environment tasks of a meta-batch.

    Raises:
        TypeError: these are tasks of another kind.
        ValueError: there is no task axis.
    """
    found = tasks.support if isinstance(tasks, Task) else tasks
    if not isinstance(tasks, Task) or not isinstance(found, EnvironmentTask):
        came = type(found).__name__
        raise TypeError(f"Expected tasks from fewstep.rl.EnvironmentTasks(environment).sample(n); got {came}.")
    if not isinstance(found.seed, Tensor) or found.seed.ndim != 1:
        raise ValueError(
            "Expected tasks with a leading task axis, as from fewstep.rl.EnvironmentTasks(environment).sample(n); got "
            f"seeds of shape {list(found.seed.shape)}. Of one task: tasks[0:1]."
        )
    return found

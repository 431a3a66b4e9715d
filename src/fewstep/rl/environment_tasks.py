"""The task source of reinforcement learning: environment tasks, and seeds for all that is random in exploring them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.rl.environments.base import TaskEnvironment
from fewstep.rl.record import Record
from fewstep.tasks import Task


@dataclass(frozen=True, eq=False)
class EnvironmentTask(Record):
    """A task of an environment; of many tasks with a leading task axis.

    Args:
        numbers: what the environment takes for a task, such as the goal, ``[numbers]``.
        seed: of everything random when the task is explored, an int64 scalar.
    """

    numbers: Tensor
    seed: Tensor


class EnvironmentTasks:
    """The tasks of an environment as a task source: ``sample(n, generator)``, like any other.

    Support and query are the same :class:`EnvironmentTask`: both stand for episodes that the learner will sample.

    >>> from fewstep.rl.environments import PointNavigation
    >>> tasks = EnvironmentTasks(PointNavigation(num_envs=40)).sample(20)
    >>> tasks.support.numbers.shape, tasks.support.seed.shape
    (torch.Size([20, 2]), torch.Size([20]))
    """

    def __init__(self, environment: TaskEnvironment) -> None:
        self.environment = environment

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        """``n`` tasks."""
        generator = torch.default_generator if generator is None else generator
        numbers = self.environment.sample_tasks(n, generator)
        if numbers.ndim != 2 or len(numbers) != n:
            raise ValueError(
                f"{type(self.environment).__name__}.sample_tasks({n}) must give [{n}, numbers]; got "
                f"{list(numbers.shape)}."
            )
        tasks = EnvironmentTask(numbers, torch.randint(2**31, (n,), generator=generator))
        return Task(tasks, tasks)

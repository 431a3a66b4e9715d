"""The task source of reinforcement learning: environment tasks with seeds for sampling their episodes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewstep.rl.environments.base import TaskEnvironment, check_environment
from fewstep.rl.record import STATIC, Record
from fewstep.tasks import Task


@dataclass(frozen=True, eq=False)
class EnvironmentTask(Record):
    """A task of an environment, or several with a leading task axis.

    Args:
        numbers: the parameters of the task, such as the goal, ``[numbers]``.
        seed: the seed of everything random in its episodes, an int64 scalar.
        environment: the environment; that of the learner's rollouts if not given.
        episodes: the number of episodes per update, and after the last; that of the learner's rollouts if not given.
        horizon: the largest number of steps of an episode; that of the learner's rollouts if not given.

    Examples:
        >>> task = EnvironmentTask(numbers=torch.tensor([0.3, -0.2]), seed=torch.tensor(0))
    """

    numbers: Tensor
    seed: Tensor
    environment: TaskEnvironment | None = field(default=None, metadata=STATIC)
    episodes: int | None = field(default=None, metadata=STATIC)
    horizon: int | None = field(default=None, metadata=STATIC)


class EnvironmentTasks:
    """The tasks of an environment as a task source: ``sample(n, generator)``, like any other.

    Support and query set are the same [`EnvironmentTask`][fewstep.rl.EnvironmentTask], which stands for the episodes
    that the learner samples. Sources for training, validation and test may have different environments, numbers of
    episodes and horizons.

    Args:
        environment: a vector environment with tasks. It is fastest with as many copies as a meta-batch has episodes.
        episodes: the number of episodes per update, and after the last; that of the learner's rollouts if not given.
        horizon: the largest number of steps of an episode; that of the learner's rollouts if not given.
        tasks: a fixed set of tasks, ``[tasks, numbers]``, which is returned in order if all are drawn, and without
            repetition if fewer are drawn. If not given, the environment draws tasks.

    Raises:
        TypeError: the environment is not a vector environment with tasks.
        ValueError: a number is out of range, or more tasks are drawn than the fixed set has.

    Examples:
        >>> from fewstep.rl.environments import PointNavigation
        >>> tasks = EnvironmentTasks(PointNavigation(num_envs=40)).sample(20)
        >>> tasks.support.numbers.shape, tasks.support.seed.shape
        (torch.Size([20, 2]), torch.Size([20]))
    """

    def __init__(
        self,
        environment: TaskEnvironment,
        episodes: int | None = None,
        horizon: int | None = None,
        tasks: Tensor | None = None,
    ) -> None:
        check_environment(environment, "EnvironmentTasks")
        for name, value in (("episodes", episodes), ("horizon", horizon)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"EnvironmentTasks: {name} must be a whole number, at least 1; got {value!r}.")
        if tasks is not None and (tasks.ndim != 2 or len(tasks) < 1):
            raise ValueError(f"EnvironmentTasks: tasks must be [tasks, numbers]; got {list(tasks.shape)}.")
        self.environment, self.episodes, self.horizon, self.tasks = environment, episodes, horizon, tasks

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        """Draw ``n`` tasks, with a leading task axis."""
        generator = torch.default_generator if generator is None else generator
        numbers = self._draw(n, generator)
        if numbers.ndim != 2 or len(numbers) != n:
            raise ValueError(
                f"{type(self.environment).__name__}.sample_tasks({n}) must give [{n}, numbers]; got "
                f"{list(numbers.shape)}."
            )
        seeds = torch.randint(2**31, (n,), generator=generator)
        tasks = EnvironmentTask(numbers, seeds, self.environment, self.episodes, self.horizon)
        return Task(tasks, tasks)

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        if self.tasks is None:
            return self.environment.sample_tasks(n, generator)
        if n > len(self.tasks):
            raise ValueError(
                f"EnvironmentTasks was given {len(self.tasks)} tasks, and {n} are drawn at once; draw fewer, such as "
                f"fewstep.evaluate(..., num_tasks={len(self.tasks)})."
            )
        if n == len(self.tasks):
            return self.tasks.clone()
        return self.tasks[torch.randperm(len(self.tasks), generator=generator)[:n]]

"""The task source of reinforcement learning: environment tasks with seeds for sampling their episodes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewstep.arguments import check_draw, check_whole
from fewstep.rl.environments.base import TaskEnvironment, check_environment
from fewstep.rl.record import STATIC, Record
from fewstep.tasks import Task


@dataclass(frozen=True, eq=False)
class EnvironmentTask(Record):
    """A task of an environment, or several with a leading task axis.

    Args:
        numbers: the parameters of the task, such as the goal, ``[numbers]``.
        seed: the seed of all random numbers of its episodes, an int64 scalar.
        environment: the environment; ``None`` uses that of the learner's rollouts.
        episodes: the number of episodes before each update and after the last; ``None`` uses that of the learner's
            rollouts.
        horizon: the maximum number of steps of an episode; ``None`` uses that of the learner's rollouts.

    Examples:
        >>> task = EnvironmentTask(numbers=torch.tensor([0.3, -0.2]), seed=torch.tensor(0))
        >>> task[None].numbers.shape  # with a task axis
        torch.Size([1, 2])
    """

    numbers: Tensor
    seed: Tensor
    environment: TaskEnvironment | None = field(default=None, metadata=STATIC)
    episodes: int | None = field(default=None, metadata=STATIC)
    horizon: int | None = field(default=None, metadata=STATIC)


class EnvironmentTasks:
    """A task source whose tasks are those of an environment.

    Support and query set are the same [`EnvironmentTask`][fewstep.rl.EnvironmentTask], from which the learner samples
    its episodes. Sources for training, validation and test may have different environments, numbers of episodes and
    horizons.

    Args:
        environment: a vector environment with tasks. It is fastest with as many copies as a meta-batch has episodes.
        episodes: the number of episodes before each update and after the last; ``None`` uses that of the learner's
            rollouts.
        horizon: the maximum number of steps of an episode; ``None`` uses that of the learner's rollouts.
        tasks: a fixed set of tasks, ``[tasks, numbers]``. If all are drawn, they are returned in order; if fewer, they
            are drawn without repetition. ``None`` draws tasks from the environment.

    Raises:
        TypeError: the environment is not a vector environment with tasks.
        ValueError: ``episodes``, ``horizon`` or ``tasks`` is invalid, or more tasks are drawn than the fixed set has.

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
        given = {"episodes": episodes, "horizon": horizon}
        check_whole("EnvironmentTasks", **{name: value for name, value in given.items() if value is not None})
        if tasks is not None and (not isinstance(tasks, Tensor) or tasks.ndim != 2 or len(tasks) < 1):
            got = list(tasks.shape) if isinstance(tasks, Tensor) else repr(tasks)
            raise ValueError(f"EnvironmentTasks: tasks must have shape [tasks, numbers]; got {got}.")
        self.environment, self.episodes, self.horizon, self.tasks = environment, episodes, horizon, tasks

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        """Draw ``n`` tasks.

        Args:
            n: the number of tasks.
            generator: the source of randomness; PyTorch's default generator if not given.

        Returns:
            A task whose support and query are one [`EnvironmentTask`][fewstep.rl.EnvironmentTask] with a task axis.

        Raises:
            ValueError: the fixed set has fewer tasks, or the environment returns another number of tasks.
        """
        check_draw("EnvironmentTasks.sample", n, generator)
        generator = torch.default_generator if generator is None else generator
        numbers = self._draw(n, generator)
        if numbers.ndim != 2 or len(numbers) != n:
            raise ValueError(
                f"{type(self.environment).__name__}.sample_tasks({n}) must return shape [{n}, numbers]; got "
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
                f"EnvironmentTasks has a fixed set of {len(self.tasks)} tasks; got a request for {n} at once. Draw "
                f"fewer, e.g. with fewstep.evaluate(..., num_tasks={len(self.tasks)})."
            )
        if n == len(self.tasks):
            return self.tasks.clone()
        return self.tasks[torch.randperm(len(self.tasks), generator=generator)[:n]]

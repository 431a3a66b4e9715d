"""What a distribution of reinforcement-learning tasks is: a vector environment whose copies each have a task."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class TaskEnvironment(Protocol):
    """A ``gymnasium.vector.VectorEnv`` that knows its tasks: what may differ between its copies, such as the goal.

    A task is a vector of numbers. ``reset(seed=...)`` and the five-value ``step`` are Gymnasium's, for all copies at
    once, with its autoreset mode "disabled": what a copy gives after its episode has ended does not count.
    """

    num_envs: int
    single_observation_space: Any
    single_action_space: Any

    def sample_tasks(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws tasks, ``[n, numbers]``, float."""
        ...

    def set_tasks(self, tasks: Tensor) -> None:
        """Gives each copy its task, ``[num_envs, numbers]``; it holds from the next reset on."""
        ...

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]: ...

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]: ...

    def close(self, **kwargs: Any) -> None: ...

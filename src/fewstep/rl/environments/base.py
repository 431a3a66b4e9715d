"""What a distribution of reinforcement-learning tasks is: a vector environment whose copies each have a task."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor

NO_TASKS = "the copies have no tasks yet: call set_tasks(sample_tasks(num_envs, generator)) first"


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


def check_tasks(tasks: Tensor, num_envs: int, numbers: int | None = None) -> None:
    """Raises a ``ValueError`` if tasks are not ``[num_envs, numbers]``; of any size of its own if not given."""
    if tasks.ndim != 2 or len(tasks) != num_envs or numbers not in (None, tasks.shape[1]):
        raise ValueError(
            f"expected a task for each of the {num_envs} copies, shape [{num_envs}, {numbers or 'numbers'}], "
            f"got shape {list(tasks.shape)}"
        )


def check_actions(actions: NDArray[Any], expected: tuple[int, ...] | None) -> None:
    """Raises a ``ValueError`` if the actions of all copies have another shape than the action space."""
    if actions.shape != expected:
        raise ValueError(f"expected actions of shape {expected}, got {actions.shape}")

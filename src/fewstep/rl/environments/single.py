"""A single environment from a vector environment with one copy."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from torch import Tensor

from fewstep.rl.environments.base import TaskEnvironment


class SingleTask(gymnasium.Env[Any, Any]):
    """A ``gymnasium.Env`` of one task, for Gymnasium's checker and other libraries of single environments.

    Args:
        copies: a task environment with ``num_envs=1``.
        task: the task, ``[numbers]``.

    Raises:
        ValueError: ``copies`` does not have exactly one copy, or the task has the wrong shape.

    Examples:
        >>> import torch
        >>> from fewstep.rl.environments import PointNavigation
        >>> environment = SingleTask(PointNavigation(num_envs=1), task=torch.tensor([0.3, -0.2]))
        >>> observation, _ = environment.reset(seed=0)
        >>> observation, reward, terminated, truncated, _ = environment.step(np.array([0.1, -0.1]))
        >>> observation.shape, terminated
        ((2,), False)
    """

    def __init__(self, copies: TaskEnvironment, task: Tensor) -> None:
        if copies.num_envs != 1:
            raise ValueError(f"SingleTask: expected an environment with num_envs=1; got num_envs={copies.num_envs}.")
        copies.set_tasks(task.unsqueeze(0))
        self.copies = copies
        self.observation_space = copies.single_observation_space
        self.action_space = copies.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        observations, infos = self.copies.reset(seed=seed, options=options)
        return observations[0], _of_the_only_copy(infos)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observations, rewards, terminated, truncated, infos = self.copies.step(np.asarray(action)[None])
        return (
            observations[0],
            float(rewards[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            _of_the_only_copy(infos),
        )

    def close(self) -> None:
        self.copies.close()


def _of_the_only_copy(infos: dict[str, Any]) -> dict[str, Any]:
    """Remove the copy axis, and the masks ``_name`` of the copies that have the information ``name``."""
    return {name: value[0] for name, value in infos.items() if f"_{name}" in infos}

"""2D navigation to a goal (MAML, section 5.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from fewstep.arguments import check_choice, check_whole
from fewstep.rl.environments.base import check_tasks


def paper_goals() -> Tensor:
    """Return the 40 test goals of MAML's authors, ``[40, 2]``, uniform in [−0.5, 0.5]² with NumPy's seed 1.

    Examples:
        >>> paper_goals().shape
        torch.Size([40, 2])
    """
    return torch.from_numpy(np.random.RandomState(1).uniform(-0.5, 0.5, (40, 2))).float()


class PointNavigation(VectorEnv[Any, Any, Any]):
    """2D navigation from the origin to a goal that is not observed (MAML, section 5.3).

    A task is the goal, uniform in [−0.5, 0.5]². An action moves the point by at most 0.1 along each axis. The reward is
    minus the distance to the goal after the move. An episode terminates when the point is within 0.01 of the goal along
    both axes, and is truncated at the horizon. Observations ``[num_envs, 2]`` are the positions, and
    ``[num_envs, 4]`` with the goals.

    Args:
        num_envs: the number of copies.
        reward: ``"distance"``, the reward of the authors' code and results, or ``"squared distance"``, that of the
            paper's text.
        observe_task: whether the goal is part of the observation (the paper's oracle).
        horizon: the number of steps after which an episode is truncated.

    Raises:
        ValueError: an argument is out of range, or tasks do not have shape ``[num_envs, 2]``.

    Examples:
        >>> environment = PointNavigation(num_envs=3)
        >>> environment.set_tasks(environment.sample_tasks(3, torch.Generator().manual_seed(0)))
        >>> observations, _ = environment.reset()
        >>> observations, rewards, terminated, truncated, _ = environment.step(np.full((3, 2), 0.1))
        >>> observations[0], rewards.shape
        (array([0.1, 0.1], dtype=float32), (3,))
    """

    def __init__(self, num_envs: int, reward: str = "distance", observe_task: bool = False, horizon: int = 100) -> None:
        check_whole("PointNavigation", num_envs=num_envs, horizon=horizon)
        check_choice("PointNavigation", ("distance", "squared distance"), reward=reward)
        self.num_envs, self.reward, self.observe_task, self.horizon = num_envs, reward, observe_task, horizon
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}
        self.single_observation_space = Box(-np.inf, np.inf, (4 if observe_task else 2,), np.float32)
        self.single_action_space = Box(-0.1, 0.1, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._goals = np.zeros((num_envs, 2))
        self._goals_from_reset = self._goals
        self._positions = np.zeros((num_envs, 2))
        self._steps = np.zeros(num_envs, dtype=np.int64)

    def sample_tasks(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` goals, ``[n, 2]``."""
        return torch.rand(n, 2, generator=generator) - 0.5

    def set_tasks(self, tasks: Tensor) -> None:
        """Set the goal of each copy, ``[num_envs, 2]``, from the next reset on."""
        check_tasks(tasks, self.num_envs, 2)
        self._goals_from_reset = tasks.cpu().double().numpy()

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Move the points to the origin; with ``options["reset_mask"]``, booleans ``[num_envs]``, only those."""
        super().reset(seed=seed if isinstance(seed, int) else None)  # the environment is deterministic
        which = (options or {}).get("reset_mask", slice(None))
        self._goals = self._goals.copy()
        self._goals[which] = self._goals_from_reset[which]
        self._positions[which] = 0
        self._steps[which] = 0
        return self._observations(), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Move the points by ``actions``, ``[num_envs, 2]``."""
        self._positions = self._positions + np.clip(actions, -0.1, 0.1)
        self._steps += 1
        offsets = self._positions - self._goals
        squared = np.square(offsets).sum(1)
        rewards = -squared if self.reward == "squared distance" else -np.sqrt(squared)
        arrived = (np.abs(offsets) < 0.01).all(1)
        return self._observations(), rewards, arrived, self._steps >= self.horizon, {}

    def _observations(self) -> Any:
        seen = [self._positions, self._goals] if self.observe_task else [self._positions]
        return np.concatenate(seen, 1, dtype=np.float32)

"""Meta-World's ML1, ML10 and ML45 as distributions of tasks (Yu et al. 2019, arXiv:1910.10897; McLean et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from fewstep.rl.environments.gymnasium_tasks import GymnasiumTasks


def meta_world(
    benchmark: Literal["ML1", "ML10", "ML45"],
    num_envs: int,
    *,
    task_name: str | None = None,
    split: Literal["train", "test"] = "train",
    horizon: int = 500,
    seed: int = 0,
    processes: bool = False,
) -> GymnasiumTasks:
    """Create copies of a simulated robot arm, each with a task of a Meta-World benchmark (Yu et al. 2019).

    A task is one number, the index of a task of the split, with 50 goals per environment: ``set_tasks`` takes
    ``[num_envs, 1]``. Observations have 39 numbers and do not contain the goal; actions have 4. Meta-World simulates
    every environment to draw its goals, which takes minutes for ML45.

    Args:
        benchmark: ``"ML1"``, ``"ML10"`` or ``"ML45"``.
        num_envs: the number of copies.
        task_name: the environment of ML1, such as ``"reach-v3"``; ``None`` for ML10 and ML45.
        split: ``"train"`` or ``"test"``. The test split has different goals in ML1, and different environments in ML10
            and ML45.
        horizon: the number of steps of an episode, at most 500.
        seed: the seed of the benchmark's goals.
        processes: whether each copy runs in its own process.

    Returns:
        The vector environment.

    Raises:
        ModuleNotFoundError: Meta-World is not installed.
        ValueError: an argument is invalid.

    Examples:
        >>> arms = meta_world("ML10", num_envs=20)  # doctest: +SKIP
    """
    try:
        import metaworld
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'Meta-World is not installed: pip install "fewstep[metaworld]", or in a clone of the repository '
            'pip install -e ".[metaworld]".',
            name=error.name,
        ) from error
    if benchmark not in ("ML1", "ML10", "ML45"):
        raise ValueError(f'meta_world: benchmark must be "ML1", "ML10" or "ML45"; got {benchmark!r}.')
    if (benchmark == "ML1") != (task_name is not None):
        raise ValueError(
            f"meta_world: task_name is required for ML1 and must be None for ML10 and ML45; got {task_name!r} for "
            f"{benchmark}."
        )
    if split not in ("train", "test"):
        raise ValueError(f'meta_world: split must be "train" or "test"; got {split!r}.')
    if not 1 <= horizon <= 500:
        raise ValueError(f"meta_world: horizon must be between 1 and 500; got {horizon}.")
    names = () if task_name is None else (task_name,)
    made = getattr(metaworld, benchmark)(*names, seed=seed)
    classes, tasks = (
        (made.train_classes, made.train_tasks) if split == "train" else (made.test_classes, made.test_tasks)
    )

    def sample_tasks(n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(len(tasks), (n, 1), generator=generator).float()

    return GymnasiumTasks(
        partial(_Arm, classes, tasks, horizon), sample_tasks, _set_task, num_envs, processes=processes
    )


def _set_task(arm: gymnasium.Env[Any, Any], task: Tensor) -> None:
    arm.unwrapped.choose(int(task.item()))  # type: ignore[attr-defined]


class _Arm(gymnasium.Env[Any, Any]):
    """An environment that switches to the environment of its task, and keeps the environments that it has created."""

    # The observation bounds differ between Meta-World's environments; the shape is the same.
    observation_space = Box(-np.inf, np.inf, (39,), np.float64)
    action_space = Box(-1.0, 1.0, (4,), np.float32)

    def __init__(self, classes: dict[str, Any], tasks: Sequence[Any], horizon: int) -> None:
        self._classes, self._tasks, self._horizon = classes, tasks, horizon
        self._made: dict[str, Any] = {}
        self._current: Any = None
        self._steps = 0

    def choose(self, index: int) -> None:
        if not 0 <= index < len(self._tasks):
            raise ValueError(f"Expected a task between 0 and {len(self._tasks) - 1}; got {index}. Use sample_tasks.")
        task = self._tasks[index]
        if task.env_name not in self._made:
            self._made[task.env_name] = self._classes[task.env_name]()
        self._current = self._made[task.env_name]
        self._current.set_task(task)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self._current.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self._current.step(action)
        self._steps += 1
        return observation, reward, terminated, truncated or self._steps >= self._horizon, info

    def close(self) -> None:
        for environment in self._made.values():
            environment.close()

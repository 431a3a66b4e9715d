"""The protocol of vector environments with one task per copy."""

from __future__ import annotations

import warnings
from typing import Any, Protocol, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor

NO_TASKS = "the copies have no tasks yet: call set_tasks(sample_tasks(num_envs, generator)) first"


@runtime_checkable
class TaskEnvironment(Protocol):
    """A ``gymnasium.vector.VectorEnv`` with tasks, which may differ between its copies, such as the goal.

    A task is a vector of numbers. ``reset(seed=...)`` and ``step`` are those of Gymnasium for all copies, with
    autoreset mode "disabled": the output of a copy after the end of its episode is ignored.
    """

    num_envs: int
    single_observation_space: Any
    single_action_space: Any

    def sample_tasks(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw tasks, ``[n, numbers]``, floating-point."""
        ...

    def set_tasks(self, tasks: Tensor) -> None:
        """Set the task of each copy, ``[num_envs, numbers]``, from the next reset on."""
        ...

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]: ...

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]: ...

    def close(self, **kwargs: Any) -> None: ...


def check_tasks(tasks: Tensor, num_envs: int, numbers: int | None = None) -> None:
    """Raise a ``ValueError`` if tasks are not ``[num_envs, numbers]``; any ``numbers`` if not given."""
    if tasks.ndim != 2 or len(tasks) != num_envs or numbers not in (None, tasks.shape[1]):
        raise ValueError(
            f"expected a task for each of the {num_envs} copies, shape [{num_envs}, {numbers or 'numbers'}], "
            f"got shape {list(tasks.shape)}"
        )


def check_actions(actions: NDArray[Any], expected: tuple[int, ...] | None) -> None:
    """Raise a ``ValueError`` if the shape of all actions is not that of the action space."""
    if actions.shape != expected:
        raise ValueError(f"expected actions of shape {expected}, got {actions.shape}")


def check_environment(environment: Any, who: str) -> None:
    """Raise a ``TypeError`` if this is not a ``TaskEnvironment``; warn of wrappers that break exact resuming.

    Args:
        environment: any object.
        who: the name of the caller, for the message.
    """
    needed = (
        "num_envs", "single_observation_space", "single_action_space", "sample_tasks", "set_tasks", "reset", "step"
    )  # fmt: skip
    missing = [name for name in needed if not hasattr(environment, name)]
    if missing:
        wrapped = hasattr(getattr(environment, "env", None), "set_tasks")
        fix = (
            "Gymnasium's wrappers of vector environments hide the tasks: wrap the single environments instead, in the "
            "make of GymnasiumTasks"
            if wrapped
            else "Wrap a Gymnasium environment in fewstep.rl.environments.GymnasiumTasks(make, sample_tasks, set_task, "
            "num_envs)"
        )
        raise TypeError(
            f"{who}: expected a vector environment with tasks (fewstep.rl.environments.TaskEnvironment); "
            f"{type(environment).__name__} has no {', '.join(missing)}. {fix}."
        )
    if not hasattr(environment.single_observation_space, "low"):
        raise TypeError(
            f"{who}: the observations of {type(environment).__name__} must be a Box; got "
            f"{environment.single_observation_space}. GymnasiumTasks flattens other spaces; so does "
            "gymnasium.wrappers.vector.FlattenObservation."
        )
    warn_of_state(environment)


def warn_of_state(environment: Any) -> None:
    """Warn if a wrapper of an environment keeps running statistics between episodes."""
    found = []
    while environment is not None:
        attributes = getattr(environment, "__dict__", {})
        if any(type(value).__name__ == "RunningMeanStd" for value in attributes.values()):
            found.append(type(environment).__name__)
        environment = attributes.get("env")
    if found:
        warnings.warn(
            f"{' and '.join(found)} keeps running statistics from episode to episode. What an episode gives is then no "
            "function of its task, seed and policy: a run that is resumed does not continue exactly, and environments "
            "for training and test differ in their statistics. Scale by fixed numbers instead, with "
            "gymnasium.wrappers.TransformObservation or TransformReward, or inside the policy.",
            stacklevel=3,
        )

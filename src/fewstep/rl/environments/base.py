"""The protocol of vector environments with one task per copy."""

from __future__ import annotations

import warnings
from typing import Any, Protocol, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor

NO_TASKS = "reset: the copies have no tasks. Call set_tasks(sample_tasks(num_envs, generator)) first."


@runtime_checkable
class TaskEnvironment(Protocol):
    """The interface of a ``gymnasium.vector.VectorEnv`` each of whose copies has a task, such as a goal.

    A task is a vector of numbers. ``reset`` and ``step`` are those of Gymnasium for all copies, with autoreset mode
    "disabled": the output of a copy after the end of its episode is ignored.

    Examples:
        >>> from fewstep.rl.environments import PointNavigation
        >>> isinstance(PointNavigation(num_envs=2), TaskEnvironment)
        True
    """

    num_envs: int
    single_observation_space: Any
    single_action_space: Any

    def sample_tasks(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` tasks, ``[n, numbers]``, floating-point."""
        ...

    def set_tasks(self, tasks: Tensor) -> None:
        """Set the task of each copy, ``[num_envs, numbers]``, from the next reset on."""
        ...

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every copy, or in those of ``options["reset_mask"]``, booleans ``[num_envs]``."""
        ...

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every copy; returns observations, rewards, terminated, truncated and information."""
        ...

    def close(self, **kwargs: Any) -> None:
        """Release the resources of all copies."""
        ...


def check_tasks(tasks: Tensor, num_envs: int, numbers: int | None = None) -> None:
    """Raise a ``ValueError`` if tasks are not ``[num_envs, numbers]``; any ``numbers`` if not given."""
    if tasks.ndim != 2 or len(tasks) != num_envs or numbers not in (None, tasks.shape[1]):
        raise ValueError(
            f"set_tasks: expected one task per copy, shape [{num_envs}, {numbers or 'numbers'}]; got shape "
            f"{list(tasks.shape)}. Draw them with sample_tasks({num_envs}, generator)."
        )


def check_actions(actions: NDArray[Any], expected: tuple[int, ...] | None) -> None:
    """Raise a ``ValueError`` if the shape of all actions is not that of the action space."""
    if actions.shape != expected:
        raise ValueError(f"step: expected actions of shape {expected}; got {actions.shape}. Pass one action per copy.")


def check_environment(environment: Any, who: str) -> None:
    """Raise a ``TypeError`` if an object is not a ``TaskEnvironment``; warn of wrappers that break exact resuming.

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
            "Gymnasium's wrappers of vector environments do not forward tasks. Wrap the single environments instead, "
            "in the function make of GymnasiumTasks"
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
            f"{environment.single_observation_space}. Use GymnasiumTasks or "
            "gymnasium.wrappers.vector.FlattenObservation, which flatten other spaces."
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
            f"{' and '.join(found)} keeps running statistics across episodes. An episode then depends not only on its "
            "task, seed and policy: a resumed run is not identical to an uninterrupted one, and the statistics of the "
            "environments for training and test differ. Scale by fixed numbers instead, with "
            "gymnasium.wrappers.TransformObservation or TransformReward, or inside the policy.",
            stacklevel=3,
        )

"""One copy of a Gymnasium environment with a task."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple, flatten, flatten_space
from numpy.typing import NDArray
from torch import Tensor

Environment = gymnasium.Env[Any, Any]

TERMINATED, TRUNCATED, FAILURE = "fewstep_terminated", "fewstep_truncated", "fewstep_failure"


class Copy(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A copy with a task, which is not stepped after the end of its episode, and whose outputs are checked.

    Ends and failures are returned in ``info``, because Gymnasium's vector classes do not step a copy whose episode has
    ended, and do not report which copy raised an error.

    Args:
        make: a function that creates the environment.
        set_task: a function that sets the task of an environment.
        index: the index of the copy.
        spaces: the spaces of the first copy.
    """

    def __init__(
        self,
        make: Callable[[], Environment],
        set_task: Callable[[Environment, Tensor], None],
        index: int,
        spaces: tuple[Space[Any], Space[Any]],
    ) -> None:
        super().__init__(make())
        self._spaces = spaces
        self.observation_space, self.action_space = flattened(spaces[0]), spaces[1]
        self.next_task: NDArray[np.floating] | None = None
        self._task: NDArray[np.floating] | None = None
        self._set_task = set_task
        self._index = index
        self._ends = {TERMINATED: False, TRUNCATED: False}
        self._last: Any = np.zeros(self.observation_space.shape, self.observation_space.dtype)

    def wrong_spaces(self) -> str | None:
        found = self.env.observation_space, self.env.action_space
        if found == self._spaces:
            return None
        return self._failure(f"its spaces are {found}; expected those of the first copy, {self._spaces}")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._task = self.next_task
        self._ends = {TERMINATED: False, TRUNCATED: False}
        try:
            self._set_task(self.env, torch.tensor(self._task))
            observation, info = self.env.reset(seed=seed, options=options)
            observation = self._flat(observation)
        except Exception as error:
            return self._last, {FAILURE: self._raised("reset", error)}
        wrong = self._wrong_observation(observation)
        if wrong:
            return self._last, {FAILURE: self._failure(wrong)}
        self._last = observation
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if any(self._ends.values()):
            return self._last, 0.0, False, False, dict(self._ends)
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
            observation, reward = self._flat(observation), float(reward)
        except Exception as error:
            return self._last, 0.0, False, False, {FAILURE: self._raised("step", error)}
        wrong = self._wrong_observation(observation)
        if not wrong and not np.isfinite(reward):
            wrong = f"its reward is {reward} for the action {shown(action)}"
        if wrong:
            return self._last, 0.0, False, False, {FAILURE: self._failure(wrong)}
        self._last = observation
        self._ends = {TERMINATED: bool(terminated), TRUNCATED: bool(truncated)}
        return observation, reward, False, False, {**info, **self._ends}

    def _flat(self, observation: Any) -> Any:
        return observation if isinstance(self._spaces[0], Box) else flatten(self._spaces[0], observation)

    def _wrong_observation(self, observation: Any) -> str | None:
        shape = np.shape(observation)
        if shape != self.observation_space.shape:
            return f"its observation has shape {shape}; expected that of its space, {self.observation_space.shape}"
        if not np.isfinite(observation).all():
            return f"its observation is not finite: {shown(observation)}"
        return None

    def _failure(self, what: str) -> str:
        return f"Copy {self._index} (task {shown(self._task)}): {what}"

    def _raised(self, where: str, error: Exception) -> str:
        return self._failure(f"{where} raised {type(error).__name__}: {error}\n\n{traceback.format_exc()}")


def flattened(space: Space[Any]) -> Box:
    """Return a ``Box`` unchanged, and a ``Dict`` or ``Tuple`` flattened as by ``FlattenObservation``."""
    found = flatten_space(space) if isinstance(space, Dict | Tuple) else space
    if not isinstance(found, Box):
        raise TypeError(
            "The observation space must be a Box, or a Dict or Tuple that gymnasium.spaces.flatten converts to a Box; "
            f"got {space}. Wrap the environment in gymnasium.wrappers.FlattenObservation or TransformObservation."
        )
    return found


def supported_spaces(environment: Environment) -> tuple[Space[Any], Space[Any]]:
    """Return the spaces of observations and actions; raise a ``TypeError`` if they are not supported."""
    observations, actions = environment.observation_space, environment.action_space
    flattened(observations)
    if not isinstance(actions, Box | Discrete | MultiDiscrete | MultiBinary):
        raise TypeError(
            f"The action space must be a Box, Discrete, MultiDiscrete or MultiBinary; got {actions}. Wrap the "
            "environment in gymnasium.wrappers.TransformAction."
        )
    return observations, actions


def shown(value: Any) -> str:
    """Format an array for an error message."""
    return str(np.asarray(value).tolist())

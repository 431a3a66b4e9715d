"""Any Gymnasium environment as a distribution of tasks."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, Space
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from fewstep.rl.environments.base import NO_TASKS, check_actions, check_tasks

Environment = gymnasium.Env[Any, Any]

_TERMINATED, _TRUNCATED, _FAILURE = "fewstep_terminated", "fewstep_truncated", "fewstep_failure"


class EnvironmentFailed(RuntimeError):  # noqa: N818 - says what happened
    """A copy of an environment raised an error, died, or gave what it must not; the message names copy and task."""


class GymnasiumTasks(VectorEnv[Any, Any, Any]):
    """Copies of a Gymnasium environment, each with a task, stepped by ``SyncVectorEnv`` or ``AsyncVectorEnv``.

    A copy whose episode has ended is not stepped further: until it is reset it gives its last observation, reward 0 and
    the same ``terminated`` and ``truncated``. Episodes are as long as the environment makes them: see
    ``max_episode_steps`` of ``gymnasium.make``.

    Args:
        make: makes one environment; its observations must be a ``Box``, its actions a ``Box`` or ``Discrete``.
        sample_tasks: draws tasks, ``(n, generator) -> [n, numbers]``.
        set_task: gives an environment that ``make`` made its task, ``(environment, [numbers])``; called before each of
            its resets.
        num_envs: how many copies.
        processes: one process for each copy (``AsyncVectorEnv``) and not all in this one (``SyncVectorEnv``); worth it
            where a step takes much longer than a millisecond.
        start_method: how processes start, ``"fork"``, ``"spawn"`` or ``"forkserver"``; by default as Python does.

    Raises:
        TypeError: if the spaces are of another kind.
        ValueError: if a set of tasks or of actions is not what it has to be.
        RuntimeError: if it is reset before it has tasks.
        EnvironmentFailed: if a copy raises an error, its process ends, it gives an observation of another shape or type
            than its space, or one that is not finite, or such a reward, or has other spaces than the first copy.

    Pendulums under gravities from 5 to 15 m/s²:

    >>> def set_gravity(pendulum, task):
    ...     pendulum.unwrapped.g = task.item()
    >>> pendulums = GymnasiumTasks(
    ...     make=lambda: gymnasium.make("Pendulum-v1"),
    ...     sample_tasks=lambda n, generator: 5 + 10 * torch.rand(n, 1, generator=generator),
    ...     set_task=set_gravity,
    ...     num_envs=4,
    ... )
    >>> pendulums.set_tasks(pendulums.sample_tasks(4, torch.Generator().manual_seed(0)))
    >>> observations, _ = pendulums.reset(seed=0)
    >>> observations, rewards, terminated, truncated, _ = pendulums.step(np.zeros((4, 1), dtype=np.float32))
    >>> observations.shape
    (4, 3)
    """

    closed = True  # until it is made: Gymnasium 1.2 closes what an error has left unmade

    def __init__(
        self,
        make: Callable[[], Environment],
        sample_tasks: Callable[[int, torch.Generator], Tensor],
        set_task: Callable[[Environment, Tensor], None],
        num_envs: int,
        *,
        processes: bool = False,
        start_method: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.num_envs = num_envs
        self._sample_tasks = sample_tasks
        self._tasks: NDArray[np.floating] | None = None
        example = make()
        self.single_observation_space, self.single_action_space = _supported_spaces(example)
        example.close()
        spaces = self.single_observation_space, self.single_action_space
        copies = [partial(_Copy, make, set_task, index, spaces) for index in range(num_envs)]
        self._copies: SyncVectorEnv[Any, Any] | AsyncVectorEnv[Any, Any]
        self._processes: list[Any] = []
        if processes:
            self._copies = AsyncVectorEnv(copies, context=start_method, autoreset_mode=AutoresetMode.DISABLED)
            self._processes = self._copies.processes
        else:
            self._copies = SyncVectorEnv(copies, autoreset_mode=AutoresetMode.DISABLED)
        self.observation_space = self._copies.observation_space
        self.action_space = self._copies.action_space
        self.metadata = self._copies.metadata
        self.closed = False
        self._raise_first(self._ask(self._copies.call, "wrong_spaces"))

    def sample_tasks(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws tasks, ``[n, numbers]``."""
        tasks = self._sample_tasks(n, generator)
        if tasks.ndim != 2 or len(tasks) != n:
            raise ValueError(f"sample_tasks({n}, generator) must give shape [{n}, numbers], gave {list(tasks.shape)}")
        return tasks

    def set_tasks(self, tasks: Tensor) -> None:
        """Gives each copy its task, ``[num_envs, numbers]``; it holds from the next reset on."""
        check_tasks(tasks, self.num_envs)
        self._tasks = tasks.detach().cpu().numpy().copy()
        self._ask(self._copies.set_attr, "next_task", list(self._tasks))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode in every copy, with ``seed`` + i in copy i, or in those of ``options["reset_mask"]``."""
        if self._tasks is None:
            raise RuntimeError(NO_TASKS)
        options = None if options is None else dict(options)  # Gymnasium takes the mask out of it
        observations, infos = self._ask(self._copies.reset, seed=seed, options=options)
        self._raise_first(_taken(infos, _FAILURE))
        return observations, infos

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One step of every copy; ``actions`` are ``[num_envs, ...]`` as the action space says."""
        actions = np.asarray(actions)
        check_actions(actions, self.action_space.shape)
        observations, rewards, _, _, infos = self._ask(self._copies.step, actions)
        self._raise_first(_taken(infos, _FAILURE))
        return observations, rewards, _taken(infos, _TERMINATED), _taken(infos, _TRUNCATED), infos

    def close_extras(self, **kwargs: Any) -> None:
        self._copies.close(**kwargs)

    def _ask(self, call: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Calls the copies; if the process of one has ended, ends them all and says which."""
        try:
            return call(*arguments, **keywords)
        except (EOFError, OSError) as error:
            message = self._who_died()
            self._end()
            raise EnvironmentFailed(message) from error

    def _raise_first(self, failures: Iterable[str | None]) -> None:
        for failure in failures:
            if failure is not None:
                self._end()
                raise EnvironmentFailed(failure)

    def _end(self) -> None:
        """Closes all copies, also where their processes no longer answer."""
        if self._processes:
            for process in self._processes:
                process.terminate()
                process.join()
            self._copies.closed = True
        self.close()

    def _who_died(self) -> str:
        ended = wait([process.sentinel for process in self._processes], timeout=5.0)
        died = []
        for index, process in enumerate(self._processes):
            if process.sentinel in ended:
                process.join()
                task = _shown(None if self._tasks is None else self._tasks[index])
                died.append(f"copy {index} (task {task}): its process ended with exit code {process.exitcode}")
        return "; ".join(died)


class _Copy(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A copy that knows its task, stands still after its episode, and checks what its environment gives.

    It tells of ends and failures by way of the information: Gymnasium's vector classes refuse to step a copy that has
    ended, and do not say which copy raised an error.
    """

    def __init__(
        self,
        make: Callable[[], Environment],
        set_task: Callable[[Environment, Tensor], None],
        index: int,
        spaces: tuple[Box, Space[Any]],
    ) -> None:
        super().__init__(make())
        self.observation_space, self.action_space = spaces
        self.next_task: NDArray[np.floating] | None = None
        self._task: NDArray[np.floating] | None = None
        self._set_task = set_task
        self._index = index
        self._ends = {_TERMINATED: False, _TRUNCATED: False}
        self._last: Any = np.zeros(spaces[0].shape, spaces[0].dtype)

    def wrong_spaces(self) -> str | None:
        found = self.env.observation_space, self.env.action_space
        expected = self.observation_space, self.action_space
        return (
            None if found == expected else self._failure(f"its spaces are {found}, those of the first are {expected}")
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._task = self.next_task
        self._ends = {_TERMINATED: False, _TRUNCATED: False}
        try:
            self._set_task(self.env, torch.tensor(self._task))
            observation, info = self.env.reset(seed=seed, options=options)
        except Exception as error:
            return self._last, {_FAILURE: self._raised("reset", error)}
        wrong = self._wrong_observation(observation)
        if wrong:
            return self._last, {_FAILURE: self._failure(wrong)}
        self._last = observation
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if any(self._ends.values()):
            return self._last, 0.0, False, False, dict(self._ends)
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
            reward = float(reward)
        except Exception as error:
            return self._last, 0.0, False, False, {_FAILURE: self._raised("step", error)}
        wrong = self._wrong_observation(observation)
        if not wrong and not np.isfinite(reward):
            wrong = f"its reward is {reward} for the action {_shown(action)}"
        if wrong:
            return self._last, 0.0, False, False, {_FAILURE: self._failure(wrong)}
        self._last = observation
        self._ends = {_TERMINATED: bool(terminated), _TRUNCATED: bool(truncated)}
        return observation, reward, False, False, {**info, **self._ends}

    def _wrong_observation(self, observation: Any) -> str | None:
        shape = np.shape(observation)
        if shape != self.observation_space.shape:
            return f"its observation has shape {shape}, its space says {self.observation_space.shape}"
        if not np.isfinite(observation).all():
            return f"its observation is not finite: {_shown(observation)}"
        return None

    def _failure(self, what: str) -> str:
        return f"copy {self._index} (task {_shown(self._task)}): {what}"

    def _raised(self, where: str, error: Exception) -> str:
        return self._failure(f"{where} raised {type(error).__name__}: {error}\n\n{traceback.format_exc()}")


def _supported_spaces(environment: Environment) -> tuple[Box, Space[Any]]:
    observations, actions = environment.observation_space, environment.action_space
    if not isinstance(observations, Box):
        raise TypeError(
            f"observations must be a Box, got {observations}: wrap the environment in "
            "gymnasium.wrappers.FlattenObservation"
        )
    if not isinstance(actions, Box | Discrete):
        raise TypeError(f"actions must be a Box or Discrete, got {actions}")
    return observations, actions


def _shown(value: Any) -> str:
    return str(np.asarray(value).tolist())


def _taken(infos: dict[str, Any], name: str) -> Any:
    """Takes a piece of information about all copies out of ``infos``; empty if no copy has it."""
    infos.pop(f"_{name}", None)
    return infos.pop(name, ())

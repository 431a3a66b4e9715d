"""Vector environments with tasks from any Gymnasium environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper
from numpy.typing import NDArray
from torch import Tensor

from fewstep.rl.environments.base import NO_TASKS, check_actions, check_tasks, warn_of_state
from fewstep.rl.environments.gymnasium_copy import (
    FAILURE,
    TERMINATED,
    TRUNCATED,
    Copy,
    Environment,
    flattened,
    shown,
    supported_spaces,
)


class EnvironmentFailed(RuntimeError):  # noqa: N818 - the name is an event
    """A copy of an environment raised an error, ended its process or returned invalid values.

    The message names the copy and its task. All copies are closed.

    Examples:
        >>> import gymnasium
        >>> def set_task(environment, task):
        ...     raise ValueError("no such task")
        >>> copies = GymnasiumTasks(
        ...     make=lambda: gymnasium.make("Pendulum-v1"),
        ...     sample_tasks=lambda n, generator: torch.zeros(n, 1),
        ...     set_task=set_task,
        ...     num_envs=1,
        ... )
        >>> copies.set_tasks(torch.zeros(1, 1))
        >>> try:
        ...     copies.reset()
        ... except EnvironmentFailed as error:
        ...     print(str(error).splitlines()[0])
        Copy 0 (task [0.0]): reset raised ValueError: no such task
    """


class GymnasiumTasks(VectorEnv[Any, Any, Any]):
    """Copies of a Gymnasium environment, each with a task, stepped by ``SyncVectorEnv`` or ``AsyncVectorEnv``.

    A copy whose episode has ended is not stepped: until it is reset, it returns its last observation, reward 0 and the
    same ``terminated`` and ``truncated``. The environment determines the length of episodes (``max_episode_steps`` of
    ``gymnasium.make``). ``Dict`` and ``Tuple`` observations are flattened to vectors as by
    ``gymnasium.wrappers.FlattenObservation``, and ``unflattened_observation_space`` is the original space. Images are
    neither flattened nor scaled. Unpickling recreates the environment.

    Args:
        make: a function that creates one environment. Its action space must be a ``Box``, ``Discrete``,
            ``MultiDiscrete`` or ``MultiBinary``.
        sample_tasks: a function that draws tasks, ``(n, generator) -> [n, numbers]``.
        set_task: a function that sets the task of an environment that ``make`` created, ``(environment, [numbers])``.
            It is called before each reset.
        num_envs: the number of copies.
        processes: whether each copy runs in its own process (``AsyncVectorEnv``) instead of the current one
            (``SyncVectorEnv``). Use it if a step takes much longer than a millisecond.
        start_method: ``"fork"``, ``"spawn"`` or ``"forkserver"``; ``None`` uses Python's default.

    Raises:
        TypeError: a space is not supported.
        ValueError: ``num_envs`` is not positive, or tasks or actions do not have the expected shape.
        RuntimeError: it is reset before its tasks are set.
        UserWarning: a wrapper keeps running statistics, which breaks exact resuming.
        EnvironmentFailed: a copy raises an error, its process ends, its observation is not finite or does not have the
            shape of its space, its reward is not finite, or its spaces differ from those of the first copy.

    Examples:
        Pendulums whose task is the gravity, from 5 to 15 m/s²:

        >>> import gymnasium
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

    closed = True  # until __init__ ends: Gymnasium 1.2 would close an environment whose __init__ raised an error

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
            raise ValueError(f"GymnasiumTasks: num_envs must be at least 1; got {num_envs}.")
        self.num_envs = num_envs
        self._sample_tasks = sample_tasks
        self._tasks: NDArray[np.floating] | None = None
        example = make()
        spaces = self.unflattened_observation_space, self.single_action_space = supported_spaces(example)
        self.single_observation_space = flattened(self.unflattened_observation_space)
        warn_of_state(example)
        example.close()
        self._made_by: Any = partial(
            GymnasiumTasks, make, sample_tasks, set_task, num_envs, processes=processes, start_method=start_method
        )
        copies = [partial(Copy, make, set_task, index, spaces) for index in range(num_envs)]
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
        """Draw ``n`` tasks, ``[n, numbers]``."""
        tasks = self._sample_tasks(n, generator)
        if tasks.ndim != 2 or len(tasks) != n:
            raise ValueError(
                f"sample_tasks({n}, generator) must return shape [{n}, numbers]; got {list(tasks.shape)}. Return one "
                "row per task."
            )
        return tasks

    def set_tasks(self, tasks: Tensor) -> None:
        """Set the task of each copy, ``[num_envs, numbers]``, from the next reset on."""
        check_tasks(tasks, self.num_envs)
        self._tasks = tasks.detach().cpu().numpy().copy()
        self._ask(self._copies.set_attr, "next_task", list(self._tasks))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every copy, or in those of ``options["reset_mask"]``, with ``seed + i`` in copy i."""
        if self._tasks is None:
            raise RuntimeError(NO_TASKS)
        options = None if options is None else dict(options)  # Gymnasium removes the mask
        observations, infos = self._ask(self._copies.reset, seed=seed, options=options)
        self._raise_first(_taken(infos, FAILURE))
        return observations, infos

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step every copy with ``actions`` ``[num_envs, ...]`` of the action space."""
        actions = np.asarray(actions)
        check_actions(actions, self.action_space.shape)
        actions = actions.astype(self.action_space.dtype)  # environments may check them with space.contains
        observations, rewards, _, _, infos = self._ask(self._copies.step, actions)
        self._raise_first(_taken(infos, FAILURE))
        return observations, rewards, _taken(infos, TERMINATED), _taken(infos, TRUNCATED), infos

    def __reduce__(self) -> tuple[Any, ...]:
        return _recreated, (CloudpickleWrapper(self._made_by),)

    def close_extras(self, **kwargs: Any) -> None:
        self._copies.close(**kwargs)

    def _ask(self, call: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call the copies; if the process of one has ended, end all and raise an error that names it."""
        try:
            return call(*arguments, **keywords)
        except (EOFError, OSError) as error:
            message = self._ended_processes()
            self._end()
            raise EnvironmentFailed(message) from error

    def _raise_first(self, failures: Iterable[str | None]) -> None:
        for failure in failures:
            if failure is not None:
                self._end()
                raise EnvironmentFailed(failure)

    def _end(self) -> None:
        """Close all copies, including those whose processes do not respond."""
        if self._processes:
            for process in self._processes:
                process.terminate()
                process.join()
            self._copies.closed = True
        self.close()

    def _ended_processes(self) -> str:
        ended = wait([process.sentinel for process in self._processes], timeout=5.0)
        died = []
        for index, process in enumerate(self._processes):
            if process.sentinel in ended:
                process.join()
                task = shown(None if self._tasks is None else self._tasks[index])
                died.append(f"Copy {index} (task {task}): its process ended with exit code {process.exitcode}")
        return "; ".join(died)


def _recreated(made_by: Any) -> GymnasiumTasks:
    made: GymnasiumTasks = made_by.fn()
    return made


def _taken(infos: dict[str, Any], name: str) -> Any:
    """Remove information about all copies from ``infos`` and return it; empty if no copy has it."""
    infos.pop(f"_{name}", None)
    return infos.pop(name, ())

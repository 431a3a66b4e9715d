"""Vector environments of MuJoCo robots with one task per copy."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from fewstep.rl.environments.base import NO_TASKS, check_actions, check_tasks
from fewstep.rl.environments.goals import Goal
from fewstep.rl.environments.physics import Floats, Mask, Physics
from fewstep.rl.environments.robots import Convention, Robot
from fewstep.rl.environments.viewer import Viewer

RESET_NOISE = 0.1  # of Gymnasium's v5 environments: positions ± U[−0.1, 0.1], velocities + 0.1·N(0, 1)


class RunningTasks(VectorEnv[Floats, NDArray[np.floating], Any]):
    """Copies of a robot, each with a task: a Gymnasium vector environment whose autoreset mode is "disabled".

    The arguments are those of [`HalfCheetahDirection`][fewstep.rl.environments.HalfCheetahDirection].
    """

    robot: ClassVar[Robot]
    goal: ClassVar[Goal]
    closed = True  # until __init__ ends: Gymnasium 1.2 would close an environment whose __init__ raised an error

    def __init__(
        self,
        num_envs: int,
        *,
        rewards: Convention = "gymnasium",
        horizon: int = 200,
        observe_task: bool = False,
        threads: int = 1,
        render_mode: str | None = None,
    ) -> None:
        for name, value in (("num_envs", num_envs), ("horizon", horizon), ("threads", threads)):
            if value < 1:
                raise ValueError(f"{type(self).__name__}: {name} must be at least 1; got {value}.")
        if rewards not in self.robot.weights:
            raise ValueError(f'{type(self).__name__}: rewards must be "gymnasium" or "paper"; got {rewards!r}.')
        self.num_envs = num_envs
        self.horizon = horizon
        self.observe_task = observe_task
        self.physics = Physics(
            _gymnasium_asset(self.robot.model),
            num_envs,
            frame_skip=self.robot.frame_skip,
            contacts=self.robot.contacts,
            threads=threads,
        )
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f'{type(self).__name__}: render_mode must be None or "rgb_array"; got {render_mode!r}.')
        self.render_mode = render_mode
        self._made_by = partial(
            type(self),
            num_envs,
            rewards=rewards,
            horizon=horizon,
            observe_task=observe_task,
            threads=threads,
            render_mode=render_mode,
        )
        self._viewer: Viewer | None = None
        self.metadata = {
            "autoreset_mode": AutoresetMode.DISABLED,
            "render_modes": ["rgb_array"],
            "render_fps": round(1 / self.physics.control_interval),
        }
        self._weights = self.robot.weights[rewards]
        self._next_tasks: Floats | None = None
        self._tasks: Floats = np.zeros((num_envs, 1))
        self._generators: list[np.random.Generator] = []
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._terminated: Mask = np.zeros(num_envs, dtype=np.bool_)
        self._was_reset: Mask = np.zeros(num_envs, dtype=np.bool_)
        observed = self.robot.observe(self.physics).shape[1]
        bound = np.full(observed, np.inf)
        low, high = ([self.goal.low], [self.goal.high]) if observe_task else ([], [])
        self.single_observation_space = Box(np.append(-bound, low), np.append(bound, high), dtype=np.float64)
        limits = self.physics.model.actuator_ctrlrange.astype(np.float32)
        self.single_action_space = Box(limits[:, 0], limits[:, 1], dtype=np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.closed = False

    def sample_tasks(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` tasks, ``[n, 1]``: directions ±1, or velocities in m/s."""
        return self.goal.sample(n, generator)

    def set_tasks(self, tasks: Tensor) -> None:
        """Set the task of each copy, ``[num_envs, 1]``, from the next reset on."""
        check_tasks(tasks, self.num_envs, 1)
        numbers = tasks.detach().cpu().double().numpy()
        if not np.isfinite(numbers).all():
            copy = int(np.flatnonzero(~np.isfinite(numbers[:, 0]))[0])
            raise ValueError(f"set_tasks: tasks must be finite; got {numbers[copy, 0]} for copy {copy}.")
        self._next_tasks = numbers.copy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Start an episode in every copy, or in those of ``options["reset_mask"]``, booleans ``[num_envs]``.

        Each copy has its own generator of random numbers, which ``seed`` seeds with ``seed + i`` for copy i. Returns
        observations ``[num_envs, numbers]`` and the information ``x_position`` (m), ``[num_envs]``.
        """
        if self._next_tasks is None:
            raise RuntimeError(NO_TASKS)
        chosen = self._chosen((options or {}).get("reset_mask"))
        if seed is not None:
            super().reset(seed=seed)
            self._generators = [seeding.np_random(seed + copy)[0] for copy in range(self.num_envs)]
        elif not self._generators:
            self._generators = [seeding.np_random()[0] for _ in range(self.num_envs)]
        model = self.physics.model
        for copy in np.flatnonzero(chosen).tolist():
            generator = self._generators[copy]
            positions = generator.uniform(-RESET_NOISE, RESET_NOISE, model.nq)
            self.physics.reset(copy, positions, RESET_NOISE * generator.standard_normal(model.nv))
        self._tasks[chosen] = self._next_tasks[chosen]
        self._elapsed[chosen] = 0
        self._terminated[chosen] = False
        self._was_reset |= chosen
        return self._observe(), _informed(x_position=self.robot.x_position(self.physics))

    def step(self, actions: NDArray[np.floating]) -> tuple[Floats, Floats, Mask, Mask, dict[str, Any]]:
        """Take one control step in every copy.

        Args:
            actions: ``[num_envs, actuators]``. MuJoCo clips them to the action space; the control cost is that of the
                actions before clipping.

        Returns:
            Observations ``[num_envs, numbers]``; rewards, terminated and truncated ``[num_envs]``; and the information
            ``x_position`` (m) and ``x_velocity`` (m/s, the mean over the step), ``[num_envs]``.
        """
        actions = self._checked(actions)
        running = self._was_reset & ~self._terminated & (self._elapsed < self.horizon)
        before = self.robot.x_position(self.physics)
        unstable = self.physics.step(actions, running)
        if unstable:
            copy = unstable[0]
            raise RuntimeError(
                f"The simulation of copy {copy} (task {self._tasks[copy].tolist()}) became unstable at step "
                f"{self._elapsed[copy] + 1} of its episode: a position or velocity is not finite or exceeds 1e10. Call "
                "reset() to continue."
            )
        self._elapsed += running
        position = self.robot.x_position(self.physics)
        velocity = (position - before) / self.physics.control_interval
        fallen = self.robot.fallen(self.physics)
        self._terminated |= fallen & running
        task_reward = self.goal.reward(velocity, self._tasks[:, 0])
        rewards = self.robot.reward(task_reward, actions, fallen, self.physics, self._weights)
        rewards[~running] = 0.0
        infos = _informed(x_position=position, x_velocity=velocity)
        return self._observe(), rewards, self._terminated.copy(), self._elapsed >= self.horizon, infos

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """Return an image of every copy, ``[180, 320, 3]``; ``None`` if ``render_mode`` is ``None``.

        Raises:
            RuntimeError: no OpenGL renderer works. The message says what to install.
        """
        if self.render_mode is None:
            return None
        if self._viewer is None:
            self._viewer = Viewer(self.physics.model)
        return tuple(self._viewer.picture(self.physics.states[copy]) for copy in range(self.num_envs))

    def __reduce__(self) -> tuple[Any, ...]:
        return self._made_by, ()

    def close_extras(self, **kwargs: Any) -> None:
        if self._viewer is not None:
            self._viewer.close()
        self.physics.close()

    def _observe(self) -> Floats:
        observations = self.robot.observe(self.physics)
        return np.concatenate((observations, self._tasks), axis=1) if self.observe_task else observations

    def _chosen(self, mask: object) -> Mask:
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise ValueError(
                f"reset: options['reset_mask'] must be a NumPy array of {self.num_envs} booleans; got {mask!r}."
            )
        return mask

    def _checked(self, actions: NDArray[np.floating]) -> NDArray[np.floating]:
        if not self._was_reset.all():
            raise RuntimeError("step: every copy must be reset before the first step. Call reset() without a mask.")
        actions = np.ascontiguousarray(actions)
        check_actions(actions, self.action_space.shape)
        if not np.isfinite(actions).all():
            copy = int(np.flatnonzero(~np.isfinite(actions).all(axis=1))[0])
            raise ValueError(
                f"step: actions must be finite; got {actions[copy].tolist()} for copy {copy} (task "
                f"{self._tasks[copy].tolist()}). If the policy has diverged, reduce the learning rate."
            )
        return actions


def _gymnasium_asset(name: str) -> Path:
    """The path of a model of Gymnasium, without importing ``gymnasium.envs.mujoco`` and its renderer."""
    return Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / name


def _informed(**values: Floats) -> dict[str, Any]:
    """Information about all copies in Gymnasium's format, each with a mask of the copies that have it."""
    infos: dict[str, Any] = {}
    for name, value in values.items():
        infos |= {name: value, f"_{name}": np.ones(len(value), dtype=np.bool_)}
    return infos

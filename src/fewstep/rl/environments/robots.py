"""The robots of Gymnasium's HalfCheetah-v5 and Ant-v5: observations, costs and termination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fewstep.rl.environments.physics import Floats, Mask, Physics

Convention = Literal["gymnasium", "paper"]


@dataclass(frozen=True)
class Weights:
    """Weights of the reward terms other than the task's."""

    control: float
    contact: float = 0.0
    survival: float = 0.0


class Robot(Protocol):
    """A MuJoCo model as an environment without a task."""

    model: str  # file among Gymnasium's assets
    frame_skip: int
    contacts: bool  # whether observations and rewards need the torso's position and the contact forces
    weights: Mapping[Convention, Weights]

    def observe(self, physics: Physics) -> Floats:
        """Observations of all copies, ``[copies, numbers]``, a new array."""
        ...

    def x_position(self, physics: Physics) -> Floats:
        """The position whose velocity is measured, ``[copies]``, m."""
        ...

    def fallen(self, physics: Physics) -> Mask:
        """The copies whose episode terminates, ``[copies]``."""
        ...

    def reward(
        self, task_reward: Floats, actions: NDArray[np.floating], fallen: Mask, physics: Physics, weights: Weights
    ) -> Floats:
        """The reward, ``[copies]``, from the task's term and the actions, ``[copies, nu]``."""
        ...


class HalfCheetah:
    """A two-legged planar robot with 6 actuators and 17 observations: positions without x, and velocities.

    The reward is the task's term − c‖a‖², with c = 0.1 in Gymnasium's convention and 0.05 in the paper's. Episodes do
    not terminate.
    """

    model = "half_cheetah.xml"
    frame_skip = 5
    contacts = False
    weights: Mapping[Convention, Weights] = MappingProxyType(
        {"gymnasium": Weights(control=0.1), "paper": Weights(control=0.05)}
    )

    def observe(self, physics: Physics) -> Floats:
        return np.concatenate((physics.qpos[:, 1:], physics.qvel), axis=1)

    def x_position(self, physics: Physics) -> Floats:
        return physics.qpos[:, 0].copy()

    def fallen(self, physics: Physics) -> Mask:
        return np.zeros(len(physics.qpos), dtype=np.bool_)

    def reward(
        self, task_reward: Floats, actions: NDArray[np.floating], fallen: Mask, physics: Physics, weights: Weights
    ) -> Floats:
        return task_reward - weights.control * np.square(actions).sum(axis=1)


class Ant:
    """A four-legged robot with 8 actuators.

    The 105 observations are positions without x and y, velocities, and the contact forces on its 13 bodies, clipped to
    ±1. The reward is the task's term + s − c‖a‖² − 0.0005‖contact forces‖², with forces clipped to ±1. In Gymnasium's
    convention c = 0.5 and s = 1, in the paper's c = 0.005 and s = 0.05; s is 0 after a fall. The robot has fallen if
    the height of its torso is not between 0.2 m and 1 m. As in Gymnasium, the velocity is that of the torso, and the
    torso's position and the contact forces are those at the start of the last simulation step.
    """

    model = "ant.xml"
    frame_skip = 5
    contacts = True
    weights: Mapping[Convention, Weights] = MappingProxyType(
        {
            "gymnasium": Weights(control=0.5, contact=5e-4, survival=1.0),
            "paper": Weights(control=0.005, contact=5e-4, survival=0.05),
        }
    )

    def observe(self, physics: Physics) -> Floats:
        forces = np.clip(physics.contact_forces[:, 1:], -1.0, 1.0)  # without those of the world body, which are 0
        return np.concatenate((physics.qpos[:, 2:], physics.qvel, forces.reshape(len(forces), -1)), axis=1)

    def x_position(self, physics: Physics) -> Floats:
        return physics.torso_position[:, 0].copy()

    def fallen(self, physics: Physics) -> Mask:
        height = physics.qpos[:, 2]
        finite = np.isfinite(physics.qpos).all(axis=1) & np.isfinite(physics.qvel).all(axis=1)
        return ~(finite & (height >= 0.2) & (height <= 1.0))

    def reward(
        self, task_reward: Floats, actions: NDArray[np.floating], fallen: Mask, physics: Physics, weights: Weights
    ) -> Floats:
        forces = np.square(np.clip(physics.contact_forces, -1.0, 1.0)).reshape(len(actions), -1)
        costs = weights.control * np.square(actions).sum(axis=1) + weights.contact * forces.sum(axis=1)
        return task_reward + ~fallen * weights.survival - costs

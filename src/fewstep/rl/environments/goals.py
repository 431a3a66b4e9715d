"""The tasks of the robots: a direction or a velocity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Goal(Protocol):
    """A distribution of tasks, each one number, and the reward of a velocity under a task."""

    low: float
    high: float

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw tasks, ``[n, 1]``, between ``low`` and ``high``."""
        ...

    def reward(self, x_velocity: NDArray[np.float64], tasks: NDArray[np.float64]) -> NDArray[np.float64]:
        """The task's term of the reward, ``[copies]``, for velocities in m/s, ``[copies]``, and tasks, ``[copies]``."""
        ...


class Direction:
    """Run forwards (+1) or backwards (−1), each with probability 1/2. The reward is d·v for the direction d."""

    low: float = -1.0
    high: float = 1.0

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(2, (n, 1), generator=generator, device=generator.device) * 2.0 - 1.0

    def reward(self, x_velocity: NDArray[np.float64], tasks: NDArray[np.float64]) -> NDArray[np.float64]:
        return tasks * x_velocity


@dataclass
class Velocity:
    """Run at a velocity v* from U[0, ``high``] m/s. The reward is ``bonus`` − abs(v − v*)."""

    high: float
    bonus: float = 0.0
    low: float = 0.0

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, 1, generator=generator, device=generator.device) * self.high

    def reward(self, x_velocity: NDArray[np.float64], tasks: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.bonus - np.abs(x_velocity - tasks)

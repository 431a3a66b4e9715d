"""The sine waves of the MAML paper (section 5.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.tasks.batch import Batch, Task
from fewstep.tasks.source import generator as derived_generator


@dataclass(frozen=True)
class Sinusoids:
    """Regression to y = A·sin(x − φ), with A and φ drawn per task (MAML, section 5.1).

    Args:
        shots: support points per task, K.
        queries: query points per task.
        amplitude: range of A.
        phase: range of φ, in radians.
        x_range: range of the inputs.
        support_range: range of the support inputs only, where it differs (Figure 2 draws them from one half).
        oracle: give A and φ to the network beside x, which then has three inputs (the paper's oracle baseline).

    >>> tasks = Sinusoids(shots=5, queries=10).sample(25)
    >>> tasks.support.x.shape, tasks.query.y.shape
    (torch.Size([25, 5, 1]), torch.Size([25, 10, 1]))
    """

    shots: int = 10
    queries: int = 10
    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, math.pi)
    x_range: tuple[float, float] = (-5.0, 5.0)
    support_range: tuple[float, float] | None = None
    oracle: bool = False

    def __post_init__(self) -> None:
        for name in ("shots", "queries"):
            if getattr(self, name) < 1:
                raise ValueError(f"Sinusoids: {name} must be at least 1; got {getattr(self, name)}.")

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        """``n`` tasks: x and y of shape ``[n, shots or queries, 1]`` (x has 3 features for the oracle)."""
        return self.points(self.waves(n, generator), generator)

    def waves(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "{n} 2"]:
        """``n`` sine waves as their amplitudes and phases, ``[n, 2]``."""
        waves = torch.rand(n, 2, generator=generator)
        for column, bounds in enumerate((self.amplitude, self.phase)):
            _scale(waves[:, column], bounds)
        return waves

    def points(self, waves: Float[Tensor, "n 2"], generator: torch.Generator | None = None) -> Task:
        """Random support and query points on the given waves, ``[n, 2]``."""
        x = torch.rand(len(waves), self.shots + self.queries, 1, generator=generator)
        if self.support_range is None:
            _scale(x, self.x_range)
        else:
            _scale(x[:, : self.shots], self.support_range)
            _scale(x[:, self.shots :], self.x_range)
        amplitude, phase = waves[:, None, :1], waves[:, None, 1:]
        y = amplitude * torch.sin(x - phase)
        if self.oracle:
            x = torch.cat([x, waves[:, None, :].expand(-1, x.shape[1], -1)], -1)
        k = self.shots
        return Task(Batch(x[:, :k], y[:, :k]), Batch(x[:, k:], y[:, k:]))


@dataclass(frozen=True)
class SinusoidPool:
    """Fresh points of the same ``count`` sine waves at every call: a fixed set of training tasks.

    The waves are a function of ``seed``; ``sample`` gives all of them, so it takes ``n == count`` only.
    """

    sinusoids: Sinusoids
    count: int = 500
    seed: int = 0

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        """New points of every wave of the pool."""
        if n != self.count:
            raise ValueError(f"SinusoidPool holds {self.count} waves and gives all of them at once; got n={n}.")
        waves = self.sinusoids.waves(self.count, derived_generator(self.seed, 0, stream=3))
        return self.sinusoids.points(waves, generator)


def _scale(uniform: Tensor, bounds: tuple[float, float]) -> None:
    """Moves fresh draws from [0, 1) to the bounds, in place."""
    uniform.mul_(bounds[1] - bounds[0]).add_(bounds[0])

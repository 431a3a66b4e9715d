"""The sine waves of the MAML paper (section 5.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
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

    def waves(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` sine waves as their amplitudes and phases, ``[n, 2]``."""
        low, high = torch.tensor([self.amplitude, self.phase]).T
        return low + (high - low) * torch.rand(n, 2, generator=generator)

    def points(self, waves: Tensor, generator: torch.Generator | None = None) -> Task:
        """Random support and query points on the given waves, ``[n, 2]``."""
        uniform = torch.rand(len(waves), self.shots + self.queries, 1, generator=generator)
        support, query = uniform[:, : self.shots], uniform[:, self.shots :]
        return Task(
            self._batch(waves, _scale(support, self.support_range or self.x_range)),
            self._batch(waves, _scale(query, self.x_range)),
        )

    def _batch(self, waves: Tensor, x: Tensor) -> Batch:
        amplitude, phase = waves[:, None, :1], waves[:, None, 1:]
        y = amplitude * torch.sin(x - phase)
        return Batch(torch.cat([x, waves[:, None, :].expand(-1, x.shape[1], -1)], -1) if self.oracle else x, y)


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


def _scale(uniform: Tensor, bounds: tuple[float, float]) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * uniform

"""The sine waves of the MAML paper (section 5.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.arguments import check_draw, check_range, check_seed, check_whole
from fewstep.tasks.batch import Batch, Task
from fewstep.tasks.source import generator as derived_generator


@dataclass(frozen=True)
class Sinusoids:
    """A source of regression tasks y = A·sin(x − φ) with random A and φ (MAML, section 5.1).

    Args:
        shots: the number of support points per task, K.
        queries: the number of query points per task.
        amplitude: the range of A.
        phase: the range of φ, in radians.
        x_range: the range of the inputs.
        support_range: the range of the support inputs, if it differs (Figure 2 uses one half).
        oracle: whether the network gets A and φ in addition to x, and so has three inputs (the paper's oracle
            baseline).

    Raises:
        TypeError: a number is not a whole number, or a range is not a pair of numbers.
        ValueError: ``shots`` or ``queries`` is less than 1, or a range is not (low, high).

    Examples:
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
        check_whole("Sinusoids", shots=self.shots, queries=self.queries)
        check_range("Sinusoids", amplitude=self.amplitude, phase=self.phase, x_range=self.x_range)
        if self.support_range is not None:
            check_range("Sinusoids", support_range=self.support_range)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        """Draw tasks.

        Args:
            n: the number of tasks.
            generator: of the random numbers; ``None`` for PyTorch's global one.

        Returns:
            Inputs and targets ``[n, shots or queries, 1]``; with ``oracle``, inputs have three features.
        """
        check_draw("Sinusoids.sample", n, generator)
        return self.points(self.waves(n, generator), generator)

    def waves(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "{n} 2"]:
        """Draw the amplitudes and phases of ``n`` sine waves, ``[n, 2]``."""
        waves = torch.rand(n, 2, generator=generator)
        for column, bounds in enumerate((self.amplitude, self.phase)):
            _scale(waves[:, column], bounds)
        return waves

    def points(self, waves: Float[Tensor, "n 2"], generator: torch.Generator | None = None) -> Task:
        """Draw support and query points on given sine waves.

        Args:
            waves: amplitudes and phases, ``[n, 2]``.
            generator: of the random numbers; ``None`` for PyTorch's global one.
        """
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
    """A source with a fixed set of sine waves, of which every call draws new points.

    ``sample`` returns all waves, so ``n`` must equal ``count``.

    Args:
        sinusoids: the distribution of the waves and the number of points.
        count: the number of waves.
        seed: the waves are a function of it.

    Examples:
        >>> SinusoidPool(Sinusoids(shots=5), count=20).sample(20).support.x.shape
        torch.Size([20, 5, 1])
    """

    sinusoids: Sinusoids
    count: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.sinusoids, Sinusoids):
            raise TypeError(f"SinusoidPool: sinusoids must be Sinusoids(...); got {type(self.sinusoids).__name__}.")
        check_whole("SinusoidPool", count=self.count)
        check_seed("SinusoidPool", seed=self.seed)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        """Draw new points on every wave.

        Args:
            n: must equal ``count``.
            generator: of the random numbers; ``None`` for PyTorch's global one.

        Raises:
            ValueError: ``n`` is not ``count``.
        """
        if n != self.count:
            raise ValueError(f"SinusoidPool holds {self.count} waves and returns all of them at once; got n={n}.")
        waves = self.sinusoids.waves(self.count, derived_generator(self.seed, 0, stream=3))
        return self.sinusoids.points(waves, generator)


def _scale(uniform: Tensor, bounds: tuple[float, float]) -> None:
    """Scale uniform draws from [0, 1) to the bounds, in place."""
    uniform.mul_(bounds[1] - bounds[0]).add_(bounds[0])

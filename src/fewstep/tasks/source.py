"""The interface of task sources, and the random generator of each meta-batch."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from fewstep.arguments import check_seed, check_whole
from fewstep.tasks.batch import Task

_WORD = 2**32


@runtime_checkable
class TaskSource(Protocol):
    """The interface of a distribution over tasks, p(T): any object with ``sample(n, generator)``.

    Examples:
        >>> import torch, fewstep
        >>> class Lines:
        ...     def sample(self, n, generator=None):
        ...         slope, x = torch.rand(n, 1, 1, generator=generator), torch.rand(n, 15, 1, generator=generator)
        ...         y = slope * x
        ...         return fewstep.Task(fewstep.Batch(x[:, :5], y[:, :5]), fewstep.Batch(x[:, 5:], y[:, 5:]))
        >>> isinstance(Lines(), TaskSource), len(Lines().sample(4))
        (True, 4)
    """

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        """Draw tasks.

        Args:
            n: the number of tasks.
            generator: of all random numbers; ``None`` for PyTorch's global one.

        Returns:
            One [`Task`][fewstep.tasks.Task] whose tensors are ``[n, examples, ...]``.
        """
        ...


def generator(seed: int, iteration: int, stream: int = 0) -> torch.Generator:
    """Make the random generator of a meta-batch, a function of seed and iteration only.

    A run that is resumed, or distributed over processes, therefore sees the same tasks. PyTorch's CPU generator uses 32
    bits of its seed; for given ``seed`` and ``stream``, the iteration is mapped to them by a bijection of 32-bit words,
    so no two iterations of a run have the same generator.

    Args:
        seed: the seed of the run.
        iteration: the index of the meta-batch.
        stream: separates uses: 0 for training, 1 for validation, 2 for test.

    Examples:
        >>> generator(0, 7).initial_seed() == generator(0, 7).initial_seed() != generator(1, 7).initial_seed()
        True
    """
    check_seed("generator", seed=seed, stream=stream)
    check_whole("generator", 0, iteration=iteration)
    key = _mix(_mix(seed % _WORD) ^ (seed // _WORD % _WORD) ^ _mix(stream % _WORD + 0x9E3779B9))
    return torch.Generator().manual_seed(_mix((iteration + key) % _WORD) ^ key)


def _mix(word: int) -> int:
    """A bijection of 32-bit words that maps neighbours far apart (the finaliser of MurmurHash3)."""
    word %= _WORD
    word = ((word ^ (word >> 16)) * 0x85EBCA6B) % _WORD
    word = ((word ^ (word >> 13)) * 0xC2B2AE35) % _WORD
    return word ^ (word >> 16)

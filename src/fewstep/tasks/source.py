"""Where tasks come from: anything with ``sample(n, generator)``, drawn reproducibly."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from fewstep.tasks.batch import Task

_WORD = 2**32


@runtime_checkable
class TaskSource(Protocol):
    """A distribution over tasks, p(T)."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        """``n`` tasks as one :class:`Task` with a leading task axis, all randomness from ``generator``."""
        ...


def generator(seed: int, iteration: int, stream: int = 0) -> torch.Generator:
    """The random generator of meta-batch ``iteration`` of a run: a pure function of its arguments.

    A resumed run, or one spread over processes, therefore sees the same tasks. PyTorch's CPU generator keeps 32 bits
    of its seed, so for a given ``(seed, stream)`` the iteration is mapped through a bijection of 32-bit words: no
    two iterations of a run share their tasks. ``stream`` separates uses (0 training, 1 validation, 2 test).

    >>> generator(0, 7).initial_seed() == generator(0, 7).initial_seed() != generator(1, 7).initial_seed()
    True
    """
    key = _mix(_mix(seed % _WORD) ^ (seed // _WORD % _WORD) ^ _mix(stream % _WORD + 0x9E3779B9))
    return torch.Generator().manual_seed(_mix((iteration + key) % _WORD) ^ key)


def _mix(word: int) -> int:
    """A bijection of 32-bit words that scatters neighbours (the finaliser of MurmurHash3)."""
    word %= _WORD
    word = ((word ^ (word >> 16)) * 0x85EBCA6B) % _WORD
    word = ((word ^ (word >> 13)) * 0xC2B2AE35) % _WORD
    return word ^ (word >> 16)

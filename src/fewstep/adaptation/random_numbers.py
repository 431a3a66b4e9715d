"""The states of PyTorch's global random generators, which dropout uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fewstep.pytorch import dispatched


def recorded() -> bool:
    """Whether the running code is being traced by a compiler or recorded as a CUDA graph, to be executed later.

    The states of generators cannot be read then.
    """
    capturing = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
    return capturing or dispatched()


def random_state() -> dict[str, Tensor]:
    """The states of the generators of the CPU and, if it is in use, of the current CUDA device."""
    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def set_random_state(state: dict[str, Tensor]) -> None:
    """Restore the result of ``random_state()``."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def replayed(state: dict[str, Tensor] | None = None) -> Iterator[None]:
    """A context that draws from ``state``, or from the current one, and restores the current state at the end."""
    outside = random_state()
    if state is not None:
        set_random_state(state)
    try:
        yield
    finally:
        set_random_state(outside)

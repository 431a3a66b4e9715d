"""PyTorch's global random generators, from which dropout draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fewstep.pytorch import dispatched


def recorded() -> bool:
    """Whether what runs now is recorded, to be run again later: traced for a compiler, or as a CUDA graph.

    There are no states of generators then.
    """
    capturing = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
    return capturing or dispatched()


def random_state() -> dict[str, Tensor]:
    """The state of the generators: the CPU's, and the current CUDA device's where one is in use."""
    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def set_random_state(state: dict[str, Tensor]) -> None:
    """Restores what :func:`random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def replayed(state: dict[str, Tensor] | None = None) -> Iterator[None]:
    """Inside, numbers are drawn from ``state``, or from the present one; outside, nothing was drawn."""
    outside = random_state()
    if state is not None:
        set_random_state(state)
    try:
        yield
    finally:
        set_random_state(outside)

"""Which processes share the work of the running code, and the process group of ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import timedelta

import torch
from torch import distributed

from fewstep.parallel.processes import ALONE, Processes

TIMEOUT = 600.0
"""Seconds after which a process that does not answer ends the others, unless ``FEWSTEP_TIMEOUT`` names another."""

_current: ContextVar[Processes | None] = ContextVar("processes", default=None)
"""``None`` if neither ``together`` nor ``alone`` was entered."""


def current() -> Processes:
    """The processes that share meta-batches here: one, outside of [`together`][fewstep.parallel.together].

    Examples:
        >>> current().size
        1
    """
    return _current.get() or ALONE


def start(timeout: float | None = None) -> Processes:
    """Start the process group that the environment describes, unless there is one, and return its processes.

    ``torchrun`` sets the environment variables (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``). Without
    them there is one process. Tensors on a CPU are exchanged with gloo, those on a GPU with NCCL. The GPU of a process
    is that of its ``LOCAL_RANK``.

    Args:
        timeout: the number of seconds after which a process that does not answer ends the others. By default
            ``FEWSTEP_TIMEOUT`` of the environment, or 600.

    Raises:
        ValueError: the timeout is not positive.
        RuntimeError: the environment asks for several processes, and PyTorch was built without ``torch.distributed``.
    """
    seconds = float(os.environ.get("FEWSTEP_TIMEOUT", TIMEOUT)) if timeout is None else timeout
    if not seconds > 0:
        raise ValueError(f"timeout must be a positive number of seconds; got {seconds}.")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not distributed.is_available():
        if several:
            raise RuntimeError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but this PyTorch has no torch.distributed.")
        return ALONE
    if not distributed.is_initialized():
        if not several:
            return ALONE
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
            backend = "cpu:gloo,cuda:nccl"
        distributed.init_process_group(backend, timeout=timedelta(seconds=seconds))
    if distributed.get_world_size() == 1:
        return ALONE
    return Processes(distributed.get_rank(), distributed.get_world_size(), seconds)


@contextmanager
def together(timeout: float | None = None) -> Iterator[Processes]:
    """A context in which all processes share each meta-batch: `meta_loss`, `meta_gradient`, `score`, `evaluate`.

    Every process calls them with the same tasks and at the same places, computes its share, and gets the result of all.
    [`fit`][fewstep.fit] and the commands enter it by themselves. Outside of it every process computes alone.

    Args:
        timeout: as for [`start`][fewstep.parallel.start].

    Yields:
        The processes.

    Examples:
        >>> import fewstep
        >>> learner = fewstep.maml(fewstep.models.MLP(1, [8], 1), fewstep.mse, inner_lr=0.01)
        >>> with together() as processes:  # the same on every process of torchrun
        ...     loss = learner.meta_gradient(fewstep.tasks.Sinusoids().sample(4))
    """
    processes = start(timeout)
    token = _current.set(processes)
    try:
        yield processes
    finally:
        _current.reset(token)


@contextmanager
def joined() -> Iterator[Processes]:
    """``together``, unless it or ``alone`` was entered already."""
    before = _current.get()
    with nullcontext(before) if before is not None else together() as processes:
        yield processes


@contextmanager
def alone() -> Iterator[None]:
    """A context in which this process computes whole meta-batches by itself.

    Examples:
        >>> with together(), alone():
        ...     current().size
        1
    """
    token = _current.set(ALONE)
    try:
        yield
    finally:
        _current.reset(token)

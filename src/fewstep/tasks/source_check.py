"""The check of a source of tasks before it is used: two draws with equal generators must be equal."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.tasks.batch import Task
from fewstep.tasks.source import TaskSource, generator
from fewstep.tasks.trees import tensors

_FEW = 2


def is_source(source: Any) -> bool:
    """Whether a value is an object with ``sample``, not a class."""
    return isinstance(source, TaskSource) and not isinstance(source, type)


def check_source(owner: str, source: TaskSource, n: int) -> None:
    """Draw two tasks twice with equal generators; raise if they differ or have no task axis of size 2.

    Global random numbers are as before afterwards. A source that cannot draw two tasks draws ``n``.

    Args:
        owner: the function that uses the source, which the message begins with.
        source: the source.
        n: the number of tasks that will be drawn at a time.

    Raises:
        ValueError: the draws differ, or the source returns another number of tasks.

    Examples:
        >>> class Unseeded:
        ...     def sample(self, n, generator=None):
        ...         x = torch.rand(n, 4, 1)
        ...         return Task(x, x)
        >>> check_source("fit", Unseeded(), 25)
        Traceback (most recent call last):
        ValueError: fit: Unseeded.sample ignores its generator: two draws with equal generators differ. ...
    """
    with _kept_random_state():
        try:
            asked, first = _FEW, source.sample(_FEW, generator(0, 0))
        except ValueError:  # a source of a fixed number of tasks
            asked, first = n, source.sample(n, generator(0, 0))
        again = source.sample(asked, generator(0, 0))
    name = type(source).__name__
    _check_count(owner, name, first, asked)
    if not _equal(tensors(first), tensors(again)):
        raise ValueError(
            f"{owner}: {name}.sample ignores its generator: two draws with equal generators differ. Draw all random "
            "numbers from it, such as torch.rand(n, generator=generator), or seed others by "
            "generator.initial_seed(); otherwise a run could not be resumed or compared."
        )


def _check_count(owner: str, name: str, drawn: Any, asked: int) -> None:
    if isinstance(drawn, Task):
        sizes = {tuple(leaf.shape)[:1] for leaf in tensors(drawn)}
        if sizes - {(asked,)}:
            shapes = [tuple(leaf.shape) for leaf in tensors(drawn)]
            raise ValueError(
                f"{owner}: {name}.sample({asked}, generator) must return a fewstep.Task whose tensors are "
                f"[{asked}, examples, ...]; got shapes {shapes}. Stack single tasks with fewstep.Task.stack([...])."
            )
    elif isinstance(drawn, list) and len(drawn) != asked:
        raise ValueError(f"{owner}: {name}.sample({asked}, generator) must return {asked} tasks; got {len(drawn)}.")


def _equal(first: list[Tensor], again: list[Tensor]) -> bool:
    def same(a: Tensor, b: Tensor) -> bool:
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if a.is_floating_point() or a.is_complex():
            return torch.allclose(a, b, rtol=1e-3, equal_nan=True)  # a GPU may add in another order
        return torch.equal(a, b)

    return len(first) == len(again) and all(same(a, b) for a, b in zip(first, again, strict=True))


@contextmanager
def _kept_random_state() -> Iterator[None]:
    """A context after which the global random numbers of PyTorch, NumPy and Python are as before."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)

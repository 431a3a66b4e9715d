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
    """Draw two tasks twice with equal generators; raise if the draws differ or are not two tasks.

    Global random numbers are as before afterwards. From a source of a fixed number of tasks, ``n`` are drawn.

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
        >>> try:
        ...     check_source("fit", Unseeded(), 25)
        ... except ValueError as error:
        ...     print(str(error)[:71])
        fit: Unseeded.sample ignores its generator: two draws with equal genera
    """
    name = type(source).__name__
    with _kept_random_state():
        asked, first = _first_draw(source, n)
        again = source.sample(asked, generator(0, 0))
    problem = _wrong_count(first, asked)
    if problem is not None:
        raise ValueError(f"{owner}: {name}.sample({asked}, generator) {problem}")
    if not _equal(tensors(first), tensors(again)):
        raise ValueError(
            f"{owner}: {name}.sample ignores its generator: two draws with equal generators differ. Draw all random "
            "numbers from it, such as torch.rand(n, generator=generator), or seed other sources of random numbers by "
            "generator.initial_seed(); a run could not be resumed or compared otherwise."
        )


def _first_draw(source: TaskSource, n: int) -> tuple[int, Any]:
    """A draw of few tasks, or of ``n`` from a source of a fixed number of tasks; and how many were asked for."""
    few = min(_FEW, n)
    try:
        drawn = source.sample(few, generator(0, 0))
    except Exception:
        if few == n:
            raise
    else:
        if few == n or _wrong_count(drawn, few) is None:
            return few, drawn
    return n, source.sample(n, generator(0, 0))


def _wrong_count(drawn: Any, asked: int) -> str | None:
    """What is wrong with the number of tasks, if anything."""
    if isinstance(drawn, Task):
        shapes = [tuple(leaf.shape) for leaf in tensors(drawn)]
        if any(shape[:1] != (asked,) for shape in shapes):
            return (
                f"must return a fewstep.Task whose tensors are [{asked}, examples, ...]; got shapes {shapes}. Stack "
                "single tasks with fewstep.Task.stack([...])."
            )
    elif isinstance(drawn, list) and len(drawn) != asked:
        return f"must return {asked} tasks; got {len(drawn)}."
    return None


def _equal(first: list[Tensor], again: list[Tensor]) -> bool:
    def same(a: Tensor, b: Tensor) -> bool:
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if torch.equal(a, b):
            return True
        real = a.is_floating_point() or a.is_complex()
        return real and torch.allclose(a, b, rtol=1e-3, equal_nan=True)  # a GPU may add in another order

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

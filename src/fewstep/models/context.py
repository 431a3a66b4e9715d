"""What a layer may know of the adaptation that it takes part in: the inner step, and the support set's statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

from torch import Tensor, nn

Statistics = dict[nn.Module, tuple[Tensor, Tensor]]
"""Mean and variance of what a layer was called with, ``[channels]`` each, by layer."""

_step: ContextVar[int | None] = ContextVar("step", default=None)
_recorded: ContextVar[Statistics | None] = ContextVar("recorded", default=None)
_given: ContextVar[Statistics | None] = ContextVar("given", default=None)


def current_step() -> int | None:
    """The inner step, counted from 0, that a loss is evaluated in; ``None`` outside of adaptation."""
    return _step.get()


@contextmanager
def inner_step(step: int) -> Iterator[None]:
    """Inside, :func:`current_step` is ``step``."""
    token = _step.set(step)
    try:
        yield
    finally:
        _step.reset(token)


@contextmanager
def recording() -> Iterator[Statistics]:
    """Inside, layers that ask for it have their statistics noted in what this gives."""
    recorded: Statistics = {}
    token = _recorded.set(recorded)
    try:
        yield recorded
    finally:
        _recorded.reset(token)


@contextmanager
def given(statistics: Statistics) -> Iterator[None]:
    """Inside, :func:`given_statistics` are these."""
    token = _given.set(statistics)
    try:
        yield
    finally:
        _given.reset(token)


def record_statistics(layer: nn.Module, x: Tensor) -> None:
    """Notes the mean and variance of each channel of ``[examples, channels, ...]``, if anybody is recording.

    Raises:
        ValueError: the layer is called twice in one pass.
    """
    recorded = _recorded.get()
    if recorded is not None:
        if layer in recorded:
            raise ValueError(
                f"{layer} is called twice for one batch, so its statistics are not those of one place; use a layer of "
                "its own for each place, or the policy 'batch'."
            )
        over = [axis for axis in range(x.ndim) if axis != 1]
        recorded[layer] = (x.mean(over), x.var(over, correction=0))


def given_statistics(layer: nn.Module) -> tuple[Tensor, Tensor] | None:
    """The statistics that a layer is to normalise by, if there are any."""
    statistics = _given.get()
    return None if statistics is None else statistics.get(layer)


def as_now(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose layers know what they know now whenever it is called; what they record then is dropped."""
    context = copy_context()

    def run(*args: Any) -> Any:
        if _recorded.get() is None:
            return function(*args)
        with recording():
            return function(*args)

    return lambda *args: context.copy().run(run, *args)

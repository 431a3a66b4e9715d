"""The context in which a layer is evaluated: the inner step, and the statistics of the support set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

from fewstep.models.stand_in import origin

Statistics = dict[nn.Module, tuple[Tensor, Tensor]]
"""Mean and variance of the input of each layer, ``[channels]`` each."""

_evaluating: ContextVar[bool] = ContextVar("evaluating", default=False)
_step: ContextVar[int | None] = ContextVar("step", default=None)
_recorded: ContextVar[Statistics | None] = ContextVar("recorded", default=None)
_given: ContextVar[Statistics | None] = ContextVar("given", default=None)


def evaluating() -> bool:
    """Whether learners are being evaluated; their models are then in evaluation mode, whatever ``training`` says."""
    return _evaluating.get()


@contextmanager
def evaluation_mode() -> Iterator[None]:
    """A context, of this thread only, in which ``evaluating()`` is true."""
    token = _evaluating.set(True)
    try:
        yield
    finally:
        _evaluating.reset(token)


def current_step() -> int | None:
    """The inner step, from 0, in which a loss is evaluated; ``None`` outside of adaptation."""
    return _step.get()


@contextmanager
def inner_step(step: int) -> Iterator[None]:
    """A context in which ``current_step()`` is ``step``."""
    token = _step.set(step)
    try:
        yield
    finally:
        _step.reset(token)


@contextmanager
def recording() -> Iterator[Statistics]:
    """A context in which layers that call ``record_statistics`` add their statistics to the yielded dictionary."""
    recorded: Statistics = {}
    token = _recorded.set(recorded)
    try:
        yield recorded
    finally:
        _recorded.reset(token)


@contextmanager
def given(statistics: Statistics) -> Iterator[None]:
    """A context in which ``given_statistics(layer)`` returns these statistics."""
    token = _given.set(statistics)
    try:
        yield
    finally:
        _given.reset(token)


def current_statistics() -> tuple[Statistics | None, Statistics | None]:
    """The statistics being recorded, and those given; ``None`` outside ``recording()`` and ``given(...)``."""
    return _recorded.get(), _given.get()


def record_statistics(layer: nn.Module, x: Tensor, sign: Tensor | None = None) -> None:
    """Record the mean and variance of each channel, inside ``recording()`` only.

    Args:
        layer: the layer that is called with ``x``.
        x: ``[examples, channels, ...]``.
        sign: the sign of each channel, ``[channels]``, by which ``x`` was multiplied; the mean is recorded without it.

    Raises:
        ValueError: the layer is called twice in one pass.
    """
    recorded, layer = _recorded.get(), origin(layer)
    if recorded is not None:
        if layer in recorded:
            raise ValueError(
                f"{layer} is called twice for one batch, so its statistics would be those of two places. Use a "
                "separate layer for each place, or the policy 'batch'."
            )
        over = [axis for axis in range(x.ndim) if axis != 1]
        mean = x.mean(over)
        recorded[layer] = (mean if sign is None else mean * sign, x.var(over, correction=0))


def given_statistics(layer: nn.Module) -> tuple[Tensor, Tensor] | None:
    """The statistics that a layer should normalise by, or ``None``."""
    statistics = _given.get()
    return None if statistics is None else statistics.get(origin(layer))

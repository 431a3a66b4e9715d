"""What a layer may know of the adaptation that it takes part in: the inner step, and the support set's statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

from fewstep.models.stand_in import origin

Statistics = dict[nn.Module, tuple[Tensor, Tensor]]
"""Mean and variance of what a layer was called with, ``[channels]`` each, by layer."""

_evaluating: ContextVar[bool] = ContextVar("evaluating", default=False)
_step: ContextVar[int | None] = ContextVar("step", default=None)
_recorded: ContextVar[Statistics | None] = ContextVar("recorded", default=None)
_given: ContextVar[Statistics | None] = ContextVar("given", default=None)


def evaluating() -> bool:
    """Whether learners are being evaluated, so that their models are in evaluation mode whatever mode they are in."""
    return _evaluating.get()


@contextmanager
def evaluation_mode() -> Iterator[None]:
    """Inside, and in no other thread, :func:`evaluating`."""
    token = _evaluating.set(True)
    try:
        yield
    finally:
        _evaluating.reset(token)


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
    recorded, layer = _recorded.get(), origin(layer)
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
    return None if statistics is None else statistics.get(origin(layer))

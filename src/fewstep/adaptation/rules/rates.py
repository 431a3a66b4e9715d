"""Rates, the hyper-parameters of a rule: numbers, tensors, learned parameters or schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from torch import Tensor, nn

from fewstep.pytorch import transforms

Rate = float | Tensor | Callable[[int], "float | Tensor"]
"""A number, a scalar tensor, an ``nn.Parameter`` (learned), or a schedule from the inner step (from 0) to either."""


def keep_rate(owner: nn.Module, argument: str, value: Rate, positive: bool = False) -> None:
    """Check a rate and make it an attribute of its rule, so that ``learner.parameters()`` holds what is learned.

    An ``nn.Parameter`` or a module is registered. Another tensor becomes a buffer that is not part of the
    ``state_dict``: it moves to other devices with the rule, and gets a gradient if it requires one.

    Args:
        owner: the rule or transform.
        argument: the name of the attribute.
        value: the rate.
        positive: whether 0 is refused.

    Raises:
        TypeError: the value is not a rate.
        ValueError: a tensor is not a scalar, or a number is out of range.
    """
    if not isinstance(value, Tensor) and callable(value) and not isinstance(value, type):
        setattr(owner, argument, value)
        return
    if isinstance(value, Tensor):
        _check_tensor(owner, argument, value)
        # Under vmap or grad the number cannot be read.
        readable = value.device.type != "meta" and not transforms()
        if readable:
            _check_number(owner, argument, value.item(), positive)
        if isinstance(value, nn.Parameter):
            setattr(owner, argument, value)
        else:
            owner.register_buffer(argument, value, persistent=False)
    else:
        setattr(owner, argument, float(checked(owner, argument, value, positive)))


def rate_at(owner: nn.Module, argument: str, step: int) -> float | Tensor:
    """The value of a rate at an inner step.

    Raises:
        TypeError: a schedule returned neither a number nor a tensor.
        ValueError: a schedule returned a tensor that is not a scalar, or a number that is negative or not finite.
    """
    rate = getattr(owner, argument)
    if isinstance(rate, (float, Tensor)) or not callable(rate):
        return rate
    value = rate(step)
    where = f"{argument}, a schedule, at step {step}"
    if isinstance(value, Tensor):
        _check_tensor(owner, where, value)
        return value
    return checked(owner, where, value)


def is_zero(rate: Rate) -> bool:
    """Whether a rate is the number 0, which switches off its part of a rule."""
    return isinstance(rate, float) and rate == 0


def checked(owner: nn.Module, argument: str, value: Any, positive: bool = False, below: float = math.inf) -> float:
    """Check a number of a rule: at least 0 (or positive), and less than ``below``."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(
            f"{_name(owner)}: {argument} must be a number{_ALSO if below == math.inf else ''}; "
            f"got {argument}={value!r} ({type(value).__name__})."
        )
    return _check_number(owner, argument, value if isinstance(value, (int, float)) else float(value), positive, below)


_ALSO = ", a 0-dim tensor or nn.Parameter, or a schedule (a callable of the inner step)"


def checked_betas(owner: nn.Module, betas: Any) -> tuple[float, float]:
    """Check the two decay rates of Adam."""
    if not isinstance(betas, Sequence) or isinstance(betas, str) or len(betas) != 2:
        raise TypeError(f"{_name(owner)}: betas must be a pair of numbers, such as (0.9, 0.999); got {betas!r}.")
    return checked(owner, "betas[0]", betas[0], below=1), checked(owner, "betas[1]", betas[1], below=1)


def _check_number(
    owner: nn.Module, argument: str, value: float, positive: bool = False, below: float = math.inf
) -> float:
    if not (0 < value < below if positive else 0 <= value < below):
        range_ = "positive" if positive else "0 or more"
        limit = "finite" if below == math.inf else f"below {below:g}"
        raise ValueError(f"{_name(owner)}: {argument} must be {limit} and {range_}; got {argument}={value!r}.")
    return value


def _check_tensor(owner: nn.Module, argument: str, value: Tensor) -> None:
    if value.ndim != 0 or not value.is_floating_point():
        raise ValueError(
            f"{_name(owner)}: {argument} must be a floating-point scalar if it is a tensor; got shape "
            f"{tuple(value.shape)} of {value.dtype}. Use fewstep.LearnedRates for rates per tensor or per entry."
        )


def _name(owner: nn.Module) -> str:
    return str(owner._get_name())


def described(owner: nn.Module, **defaults: Any) -> str:
    """The options of a rule that differ from their defaults, for its ``repr``; submodules are shown separately."""
    shown = []
    for name, default in defaults.items():
        value = getattr(owner, name)
        if isinstance(value, nn.Module) or (not isinstance(value, Tensor) and value == default):
            continue
        if isinstance(value, Tensor):
            text = f"{type(value).__name__.lower()}({value.item():g})"
        else:
            text = getattr(value, "__name__", repr(value))
        shown.append(f"{name}={text}")
    return ", ".join(shown)

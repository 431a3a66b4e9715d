"""Adjoints and objectives that change during training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Scheduled(Generic[Choice]):
    """An adjoint or objective that changes during training.

    [`fit`][fewstep.fit] sets the iteration; in your own loop, set ``learner.iteration``.

    Args:
        choice: a function from the outer iteration (from 0) to the adjoint or objective.

    Examples:
        >>> import fewstep
        >>> adjoint = Scheduled(lambda iteration: fewstep.FirstOrder() if iteration < 100 else fewstep.Unrolled())
    """

    choice: Callable[[int], Choice]


def at_iteration(choice: Any, iteration: int) -> Any:
    """The value of a choice at an outer iteration."""
    return choice.choice(iteration) if isinstance(choice, Scheduled) else choice

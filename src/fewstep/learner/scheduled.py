"""A choice that changes while training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Scheduled(Generic[Choice]):
    """A choice that changes while training: ``choice(iteration)`` gives the adjoint or objective in force.

    >>> import fewstep
    >>> adjoint = Scheduled(lambda iteration: fewstep.FirstOrder() if iteration < 100 else fewstep.Unrolled())
    """

    choice: Callable[[int], Choice]


def at_iteration(choice: Any, iteration: int) -> Any:
    """A choice as it is at an outer iteration."""
    return choice.choice(iteration) if isinstance(choice, Scheduled) else choice

"""Adjoints and objectives that change during training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fewstep.adaptation import Adjoint
from fewstep.arguments import check_function

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

    def __post_init__(self) -> None:
        if isinstance(self.choice, Adjoint):
            raise TypeError(f"Scheduled: choice is a function of the iteration; got {self.choice!r} itself.")
        check_function("Scheduled", "a function of the outer iteration", choice=self.choice)


def at_iteration(choice: Any, iteration: int) -> Any:
    """The value of a choice at an outer iteration."""
    return choice.choice(iteration) if isinstance(choice, Scheduled) else choice

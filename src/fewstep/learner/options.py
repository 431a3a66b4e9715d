"""The options of a meta-learner as types, so that editors complete them and type checkers find what is misspelt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from torch import Tensor

from fewstep.adaptation import Adjoint, Rule
from fewstep.learner.scheduled import Scheduled
from fewstep.learner.selection import Names
from fewstep.objectives import Objective


class CommonOptions(TypedDict, total=False):
    """What every algorithm leaves open; see :class:`fewstep.MetaLearner`."""

    inner_loss: Callable[..., Tensor] | None
    vectorize: bool | str
    chunk: int | None
    compile: bool | str


class AdaptsOptions(CommonOptions, total=False):
    """Which parameters are adapted and learned is open too."""

    adapts: Names
    learns: Names


class ObjectiveOptions(AdaptsOptions, total=False):
    """And the objective, and what each step sees."""

    objective: Objective | Scheduled[Objective]
    inner_batch: int | None


class Options(ObjectiveOptions, total=False):
    """And the adjoint."""

    adjoint: Adjoint | Scheduled[Adjoint]


class RuleOptions(Options, total=False):
    """And the rule."""

    rule: Rule


class HeadOptions(CommonOptions, total=False):
    """All but which parameters are adapted."""

    learns: Names
    objective: Objective | Scheduled[Objective]
    inner_batch: int | None
    adjoint: Adjoint | Scheduled[Adjoint]


class ContextOptions(CommonOptions, total=False):
    """All but which parameters are adapted and learned."""

    objective: Objective | Scheduled[Objective]
    inner_batch: int | None
    adjoint: Adjoint | Scheduled[Adjoint]


def refuse(algorithm: str, options: Any, **reasons: str) -> None:
    """Raises if an algorithm is given an option that it is defined by.

    Raises:
        TypeError: with the name of the option, and what to use instead.
    """
    for name, instead in reasons.items():
        if name in options:
            raise TypeError(f"{algorithm}() sets {name} itself, and got {name}={options[name]!r}; {instead}.")

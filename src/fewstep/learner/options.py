"""The keyword arguments of the algorithms as types, for completion in editors and for type checkers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from torch import Tensor

from fewstep.adaptation import Adjoint, Rule
from fewstep.learner.scheduled import Scheduled
from fewstep.learner.selection import Names
from fewstep.objectives import Objective


class CommonOptions(TypedDict, total=False):
    """The arguments that every algorithm accepts; see [`MetaLearner`][fewstep.MetaLearner]."""

    inner_loss: Callable[..., Tensor] | None
    vectorize: bool | str
    chunk: int | None
    compile: bool | str


class AdaptsOptions(CommonOptions, total=False):
    """In addition, which parameters are adapted and learned."""

    adapts: Names
    learns: Names


class ObjectiveOptions(AdaptsOptions, total=False):
    """In addition, the objective and the examples per inner step."""

    objective: Objective | Scheduled[Objective]
    inner_batch: int | None


class Options(ObjectiveOptions, total=False):
    """In addition, the adjoint."""

    adjoint: Adjoint | Scheduled[Adjoint]


class RuleOptions(Options, total=False):
    """In addition, the rule."""

    rule: Rule


class HeadOptions(CommonOptions, total=False):
    """All arguments except the rule and which parameters are adapted."""

    learns: Names
    objective: Objective | Scheduled[Objective]
    inner_batch: int | None
    adjoint: Adjoint | Scheduled[Adjoint]


class ContextOptions(CommonOptions, total=False):
    """All arguments except the rule and which parameters are adapted and learned."""

    objective: Objective | Scheduled[Objective]
    inner_batch: int | None
    adjoint: Adjoint | Scheduled[Adjoint]


def refuse(algorithm: str, options: Any, **reasons: str) -> None:
    """Raise if an algorithm is given an option that it sets itself.

    Args:
        algorithm: the name of the algorithm.
        options: the keyword arguments that were passed.
        **reasons: for each option that the algorithm sets, what to use instead.

    Raises:
        TypeError: such an option was passed.
    """
    for name, instead in reasons.items():
        if name in options:
            raise TypeError(f"{algorithm}() sets {name} itself; got {name}={options[name]!r}. {instead}.")

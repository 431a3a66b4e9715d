"""Testing weights under another normalisation policy than they were trained with."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor

from fewstep.learner import MetaLearner

OtherNorm = Literal["batch", "support"]
"""Policies that the weights of another one can be tested under: batch and support norms have no state."""


SHARED = (*get_args(OtherNorm), "running")
"""Policies with the same parameters: scales and shifts. Those of the others mean something else."""


def check_norm(own: str, other: OtherNorm) -> None:
    """Checks that parameters that were trained under one policy can be tested under another.

    Raises:
        ValueError: the policies have parameters of different kinds.
    """
    if own not in SHARED:
        raise ValueError(
            f"the run was trained under the norm {own!r}, whose parameters are of another kind than those of "
            f"{other!r}; only runs trained under {', '.join(SHARED)} can be tested under another norm."
        )


def take_parameters(learner: Any, state: dict[str, Tensor]) -> None:
    """Loads the parameters of a learner that was trained under another policy, without what only that policy has.

    Raises:
        ValueError: the learner does not adapt in gradient steps, so that a policy would mean something else.
    """
    if not isinstance(learner, MetaLearner):
        raise ValueError(
            f"{type(learner).__name__} puts support and query images through the network differently; only gradient "
            "methods (maml, anil, ...) can be tested under another norm."
        )
    own = learner.state_dict()
    learner.load_state_dict({**own, **{name: value for name, value in state.items() if name in own}})

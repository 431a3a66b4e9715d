"""The same weights under another normalisation policy than they were trained with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

from torch import Tensor

from fewstep.learner import MetaLearner

OtherNorm = Literal["batch", "support"]
"""Policies that other weights can be tested under: they have no state of their own."""


def under_norm(experiment: Any, norm: OtherNorm) -> Any:
    """The experiment with another policy, whose learner takes the same parameters.

    Batch, support and running norms have the same scales and shifts. Running averages are not there unless they were
    trained, and the parameters of the other policies mean something else.

    Raises:
        ValueError: the parameters do not allow it.
    """
    if not hasattr(experiment, "norm"):
        raise ValueError(f"the network of a {type(experiment).__name__} experiment has no normalisation to change.")
    kinds = (*get_args(OtherNorm), "running")
    if experiment.norm not in kinds:
        raise ValueError(
            f"the run was trained under the norm {experiment.norm!r}, whose parameters are of another kind than those "
            f"of {norm!r}; only runs trained under {', '.join(kinds)} can be tested under another norm."
        )
    return replace(experiment, norm=norm)


def take_parameters(learner: Any, state: dict[str, Tensor]) -> None:
    """Loads a learner that was trained under another policy; what only that policy has is left behind.

    Raises:
        ValueError: the learner is none that adapts in gradient steps, so that a policy would mean something else.
    """
    if not isinstance(learner, MetaLearner):
        raise ValueError(
            f"{type(learner).__name__} puts support and query images through the network in a way of its own; only "
            "gradient methods (maml, anil, ...) can be tested under another norm."
        )
    own = learner.state_dict()
    learner.load_state_dict({**own, **{name: value for name, value in state.items() if name in own}})

"""The check of a learner that is examined."""

from __future__ import annotations

from typing import Any

from fewstep.learner import Learner


def check_learner(owner: str, learner: Any) -> None:
    """Raise unless a value is a learner that adapts by gradient steps.

    Args:
        owner: the function, which the message begins with.
        learner: the value.
    """
    if not isinstance(learner, Learner):
        raise TypeError(
            f"{owner}: learner must be a fewstep.MetaLearner; got {type(learner).__name__}. Make one from a model: "
            "fewstep.maml(model, loss, inner_lr=0.01)."
        )

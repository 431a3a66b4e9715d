"""Losses of a task, and meta-objectives over the path of adaptation."""

from fewstep.objectives.losses import accuracy, cross_entropy, mse, supervised
from fewstep.objectives.meta import Objective, multi_step_loss, query_loss, reptile_loss

__all__ = [
    "Objective",
    "accuracy",
    "cross_entropy",
    "mse",
    "multi_step_loss",
    "query_loss",
    "reptile_loss",
    "supervised",
]

"""The meta-learner and what it is made of."""

from fewstep.learner.meta_learner import VMAP_LIMIT, MetaLearner, Scheduled
from fewstep.learner.selection import select

__all__ = ["VMAP_LIMIT", "MetaLearner", "Scheduled", "select"]

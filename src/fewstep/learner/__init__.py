"""The meta-learner and its parts."""

from fewstep.learner.each_task import VMAP_LIMIT, Tasks
from fewstep.learner.learner import Learner
from fewstep.learner.meta_learner import MetaLearner
from fewstep.learner.scheduled import Scheduled
from fewstep.learner.selection import select

__all__ = ["VMAP_LIMIT", "Learner", "MetaLearner", "Scheduled", "Tasks", "select"]

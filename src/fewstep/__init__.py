"""Meta-learning by gradient descent: MAML and its family, on PyTorch, for any ``nn.Module``."""

from fewstep import baselines, models, tasks
from fewstep.adaptation import (
    Adam,
    Adjoint,
    FirstOrder,
    GradientDescent,
    Implicit,
    LearnedRates,
    Recomputed,
    Rule,
    Unrolled,
    adapt,
)
from fewstep.algorithms import anil, boil, cavia, fomaml, imaml, maml, maml_plus_plus, meta_sgd, reptile
from fewstep.evaluation import Evaluation, evaluate
from fewstep.learner import MetaLearner, Scheduled
from fewstep.objectives import accuracy, cross_entropy, mse, multi_step_loss, query_loss, reptile_loss
from fewstep.training import TrainingDiverged, TrainingInterrupted, fit

__version__ = "0.1.0"

__all__ = [
    "Adam",
    "Adjoint",
    "Evaluation",
    "FirstOrder",
    "GradientDescent",
    "Implicit",
    "LearnedRates",
    "MetaLearner",
    "Recomputed",
    "Rule",
    "Scheduled",
    "TrainingDiverged",
    "TrainingInterrupted",
    "Unrolled",
    "accuracy",
    "adapt",
    "anil",
    "baselines",
    "boil",
    "cavia",
    "cross_entropy",
    "evaluate",
    "fit",
    "fomaml",
    "imaml",
    "maml",
    "maml_plus_plus",
    "meta_sgd",
    "models",
    "mse",
    "multi_step_loss",
    "query_loss",
    "reptile",
    "reptile_loss",
    "tasks",
]

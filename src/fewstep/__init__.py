"""Meta-learning by gradient descent: MAML and its family, on PyTorch, for any ``nn.Module``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewstep import allocator, baselines, datasets, models, rl, tasks
    from fewstep.adaptation import (
        Adam,
        Adjoint,
        CarriedAdam,
        FirstOrder,
        GradientDescent,
        Implicit,
        LearnedRates,
        MetaLSTM,
        Recomputed,
        Rule,
        Truncated,
        Unrolled,
        adapt,
    )
    from fewstep.algorithms import anil, boil, cavia, fomaml, imaml, maml, maml_plus_plus, meta_lstm, meta_sgd, reptile
    from fewstep.evaluation import Evaluation, evaluate
    from fewstep.learner import MetaLearner, Scheduled
    from fewstep.objectives import accuracy, cross_entropy, mse, multi_step_loss, query_loss, reptile_loss, supervised
    from fewstep.tasks import Batch, Task
    from fewstep.training import TrainingDiverged, TrainingInterrupted, fit

__version__ = "0.1.0"

__all__ = [
    "Adam",
    "Adjoint",
    "Batch",
    "CarriedAdam",
    "Evaluation",
    "FirstOrder",
    "GradientDescent",
    "Implicit",
    "LearnedRates",
    "MetaLSTM",
    "MetaLearner",
    "Recomputed",
    "Rule",
    "Scheduled",
    "Task",
    "TrainingDiverged",
    "TrainingInterrupted",
    "Truncated",
    "Unrolled",
    "accuracy",
    "adapt",
    "allocator",
    "anil",
    "baselines",
    "boil",
    "cavia",
    "cross_entropy",
    "datasets",
    "evaluate",
    "fit",
    "fomaml",
    "imaml",
    "maml",
    "maml_plus_plus",
    "meta_lstm",
    "meta_sgd",
    "models",
    "mse",
    "multi_step_loss",
    "query_loss",
    "reptile",
    "reptile_loss",
    "rl",
    "supervised",
    "tasks",
]

# What is public is imported when it is first asked for, so that the command line can settle the allocator, and print
# its help, before torch is loaded.
_HOMES = {
    "fewstep.adaptation": (
        "Adam",
        "Adjoint",
        "CarriedAdam",
        "FirstOrder",
        "GradientDescent",
        "Implicit",
        "LearnedRates",
        "MetaLSTM",
        "Recomputed",
        "Rule",
        "Truncated",
        "Unrolled",
        "adapt",
    ),
    "fewstep.algorithms": (
        "anil",
        "boil",
        "cavia",
        "fomaml",
        "imaml",
        "maml",
        "maml_plus_plus",
        "meta_lstm",
        "meta_sgd",
        "reptile",
    ),
    "fewstep.evaluation": ("Evaluation", "evaluate"),
    "fewstep.learner": ("MetaLearner", "Scheduled"),
    "fewstep.objectives": (
        "accuracy",
        "cross_entropy",
        "mse",
        "multi_step_loss",
        "query_loss",
        "reptile_loss",
        "supervised",
    ),
    "fewstep.tasks": ("Batch", "Task"),
    "fewstep.training": ("TrainingDiverged", "TrainingInterrupted", "fit"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fewstep' has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), None)
    value = import_module(f"fewstep.{name}") if home is None else getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

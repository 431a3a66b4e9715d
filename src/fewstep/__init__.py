"""Meta-learning by gradient descent: MAML and its family, on PyTorch, for any ``nn.Module``.

The public names by subject::

    algorithms   maml fomaml anil boil meta_sgd maml_plus_plus reptile imaml cavia meta_lstm;
                 MetaLearner for any other combination, adapt for functions of parameters
    tasks        Task Batch; sources of tasks in fewstep.tasks, data sets in fewstep.datasets
    models       fewstep.models; any nn.Module works
    losses       mse cross_entropy supervised; the metric accuracy, array_metric for NumPy ones
    rules        SGD GradientDescent Adam AdamW RMSprop Adagrad Adadelta CarriedAdam MetaLSTM
                 LearnedRate LearnedRates PerParameter
                 chain with clip_by_norm clip_by_value decay_weights scale_by
    adjoints     Unrolled Recomputed FirstOrder Truncated Implicit
    objectives   query_loss multi_step_loss reptile_loss; Scheduled changes one during training
    training     fit load; TrainingDiverged TrainingInterrupted
    evaluation   evaluate check_gradients; what adaptation changes in fewstep.evaluation
    protocols    Adjoint Rule Transform, for custom classes
    more         fewstep.baselines, fewstep.rl, fewstep.parallel, fewstep.allocator

Examples:
    >>> import fewstep as fs
    >>> learner = fs.maml(fs.models.MLP(1, [40, 40], 1), fs.mse, inner_lr=0.01)
    >>> source = fs.tasks.Sinusoids(shots=10)
    >>> metrics = fs.fit(learner, source, iterations=10, progress=False)
    >>> model = learner.adapt(source.sample(1)[0].support)  # an MLP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewstep import allocator, baselines, datasets, evaluation, models, parallel, rl, tasks
    from fewstep.adaptation import (
        SGD,
        Adadelta,
        Adagrad,
        Adam,
        AdamW,
        Adjoint,
        CarriedAdam,
        FirstOrder,
        GradientDescent,
        Implicit,
        LearnedRate,
        LearnedRates,
        MetaLSTM,
        PerParameter,
        Recomputed,
        RMSprop,
        Rule,
        Transform,
        Truncated,
        Unrolled,
        adapt,
        chain,
        clip_by_norm,
        clip_by_value,
        decay_weights,
        scale_by,
    )
    from fewstep.algorithms import anil, boil, cavia, fomaml, imaml, maml, maml_plus_plus, meta_lstm, meta_sgd, reptile
    from fewstep.evaluation import Evaluation, GradientCheck, array_metric, check_gradients, evaluate
    from fewstep.learner import MetaLearner, Scheduled
    from fewstep.objectives import accuracy, cross_entropy, mse, multi_step_loss, query_loss, reptile_loss, supervised
    from fewstep.tasks import Batch, Task
    from fewstep.training import TrainingDiverged, TrainingInterrupted, fit, load

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adjoint",
    "Batch",
    "CarriedAdam",
    "Evaluation",
    "FirstOrder",
    "GradientCheck",
    "GradientDescent",
    "Implicit",
    "LearnedRate",
    "LearnedRates",
    "MetaLSTM",
    "MetaLearner",
    "PerParameter",
    "RMSprop",
    "Recomputed",
    "Rule",
    "Scheduled",
    "Task",
    "TrainingDiverged",
    "TrainingInterrupted",
    "Transform",
    "Truncated",
    "Unrolled",
    "accuracy",
    "adapt",
    "allocator",
    "anil",
    "array_metric",
    "baselines",
    "boil",
    "cavia",
    "chain",
    "check_gradients",
    "clip_by_norm",
    "clip_by_value",
    "cross_entropy",
    "datasets",
    "decay_weights",
    "evaluate",
    "evaluation",
    "fit",
    "fomaml",
    "imaml",
    "load",
    "maml",
    "maml_plus_plus",
    "meta_lstm",
    "meta_sgd",
    "models",
    "mse",
    "multi_step_loss",
    "parallel",
    "query_loss",
    "reptile",
    "reptile_loss",
    "rl",
    "scale_by",
    "supervised",
    "tasks",
]

# Public names are imported when they are first used, so that the command line can select the allocator and print its
# help before torch is imported.
_HOMES = {
    "fewstep.adaptation": (
        "Adadelta",
        "Adagrad",
        "Adam",
        "AdamW",
        "Adjoint",
        "CarriedAdam",
        "FirstOrder",
        "GradientDescent",
        "Implicit",
        "LearnedRate",
        "LearnedRates",
        "MetaLSTM",
        "PerParameter",
        "RMSprop",
        "Recomputed",
        "Rule",
        "Truncated",
        "SGD",
        "Transform",
        "Unrolled",
        "adapt",
        "chain",
        "clip_by_norm",
        "clip_by_value",
        "decay_weights",
        "scale_by",
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
    "fewstep.evaluation": ("Evaluation", "GradientCheck", "array_metric", "check_gradients", "evaluate"),
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
    "fewstep.training": ("TrainingDiverged", "TrainingInterrupted", "fit", "load"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fewstep' has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), None)
    value = import_module(f"fewstep.{name}") if home is None else getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

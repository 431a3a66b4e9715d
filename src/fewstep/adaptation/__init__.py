"""Adaptation: the inner loop, its update rules, and how to differentiate through it."""

from fewstep.adaptation.adjoints import (
    Adjoint,
    FirstOrder,
    Implicit,
    Recomputed,
    Truncated,
    Unrolled,
    constant_gradient,
    exact_gradient,
)
from fewstep.adaptation.functional import adapt
from fewstep.adaptation.inner_loop import Loss, inner_loop
from fewstep.adaptation.meta_lstm import MetaLSTM
from fewstep.adaptation.recomputed import recomputed_gradient
from fewstep.adaptation.rules import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    CarriedAdam,
    GradientDescent,
    LearnedRate,
    LearnedRates,
    PerParameter,
    RMSprop,
    Rule,
    Transform,
    chain,
    clip_by_norm,
    clip_by_value,
    decay_weights,
    scale_by,
)

__all__ = [
    "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adjoint", "CarriedAdam", "FirstOrder", "GradientDescent",
    "Implicit", "LearnedRate", "LearnedRates", "Loss", "MetaLSTM", "PerParameter", "RMSprop", "Recomputed", "Rule",
    "Transform", "Truncated", "Unrolled", "adapt", "chain", "clip_by_norm", "clip_by_value", "constant_gradient",
    "decay_weights", "exact_gradient", "inner_loop", "recomputed_gradient", "scale_by",
]  # fmt: skip

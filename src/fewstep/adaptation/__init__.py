"""Adaptation: the inner loop, its update rules, and how to differentiate through it."""

from fewstep.adaptation.adjoints import Adjoint, FirstOrder, Implicit, Recomputed, Unrolled
from fewstep.adaptation.functional import adapt
from fewstep.adaptation.inner_loop import Loss, inner_loop
from fewstep.adaptation.meta_lstm import MetaLSTM
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
    "Transform", "Unrolled", "adapt", "chain", "clip_by_norm", "clip_by_value", "decay_weights", "inner_loop",
    "scale_by",
]  # fmt: skip

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
from fewstep.adaptation.rules import Adam, CarriedAdam, GradientDescent, LearnedRates, Rule

__all__ = [
    "Adam", "Adjoint", "CarriedAdam", "FirstOrder", "GradientDescent", "Implicit", "LearnedRates", "Loss", "MetaLSTM",
    "Recomputed", "Rule", "Truncated", "Unrolled", "adapt", "constant_gradient", "exact_gradient", "inner_loop",
    "recomputed_gradient",
]  # fmt: skip

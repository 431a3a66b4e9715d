"""Adaptation: the inner loop, its update rules, and how to differentiate through it."""

from fewstep.adaptation.adjoints import Adjoint, FirstOrder, Implicit, Recomputed, Unrolled
from fewstep.adaptation.functional import adapt
from fewstep.adaptation.inner_loop import Loss, inner_loop
from fewstep.adaptation.meta_lstm import MetaLSTM
from fewstep.adaptation.rules import Adam, CarriedAdam, GradientDescent, LearnedRates, Rule

__all__ = [
    "Adam", "Adjoint", "CarriedAdam", "FirstOrder", "GradientDescent", "Implicit", "LearnedRates", "Loss", "MetaLSTM",
    "Recomputed", "Rule", "Unrolled", "adapt", "inner_loop",
]  # fmt: skip

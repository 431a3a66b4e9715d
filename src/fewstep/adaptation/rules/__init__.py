"""Update rules: how an inner step changes the parameters, given their gradients.

A rule is a pure function: it returns new tensors and modifies nothing. What it learns is held in ``nn.Parameter``s.
"""

from fewstep.adaptation.rules.adadelta import Adadelta
from fewstep.adaptation.rules.adagrad import Adagrad
from fewstep.adaptation.rules.adam import Adam, Moments
from fewstep.adaptation.rules.adamw import AdamW
from fewstep.adaptation.rules.carried_adam import CarriedAdam
from fewstep.adaptation.rules.chained import Chain, chain
from fewstep.adaptation.rules.gradient_descent import SGD, GradientDescent
from fewstep.adaptation.rules.learned_rate import LearnedRate
from fewstep.adaptation.rules.learned_rates import LearnedRates
from fewstep.adaptation.rules.per_parameter import PerParameter
from fewstep.adaptation.rules.rates import Rate
from fewstep.adaptation.rules.rmsprop import RMSprop
from fewstep.adaptation.rules.rule import Params, Rule
from fewstep.adaptation.rules.transforms import Transform, clip_by_norm, clip_by_value, decay_weights, scale_by

__all__ = [
    "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "CarriedAdam", "Chain", "GradientDescent", "LearnedRate",
    "LearnedRates", "Moments", "Params", "PerParameter", "RMSprop", "Rate", "Rule", "Transform", "chain",
    "clip_by_norm", "clip_by_value", "decay_weights", "scale_by",
]  # fmt: skip

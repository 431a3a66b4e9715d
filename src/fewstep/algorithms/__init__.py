"""The algorithms of the MAML family.

Each is a function that composes a learner from an update rule, an adjoint and an objective.
"""

from fewstep.algorithms.first_order import fomaml, meta_lstm, reptile
from fewstep.algorithms.partial_adaptation import anil, boil, cavia
from fewstep.algorithms.second_order import imaml, maml, maml_plus_plus, meta_sgd

__all__ = ["anil", "boil", "cavia", "fomaml", "imaml", "maml", "maml_plus_plus", "meta_lstm", "meta_sgd", "reptile"]

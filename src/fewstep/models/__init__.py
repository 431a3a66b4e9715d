"""Networks of the papers: plain modules that know nothing of meta-learning."""

from fewstep.models.function import Function
from fewstep.models.mlp import MLP

__all__ = ["MLP", "Function"]

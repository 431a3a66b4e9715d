"""PyTorch's operations where their second derivatives are wrong or missing: replaced, or an error that says so."""

from fewstep.adaptation.operations.errors import explained
from fewstep.adaptation.operations.replacing import twice_differentiable

__all__ = ["explained", "twice_differentiable"]

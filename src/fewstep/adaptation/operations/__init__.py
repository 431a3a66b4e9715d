"""Replacements for PyTorch's operations with wrong or missing second derivatives, and errors for the rest."""

from fewstep.adaptation.operations.errors import explained
from fewstep.adaptation.operations.replacing import twice_differentiable

__all__ = ["explained", "twice_differentiable"]

"""One learned rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewstep.adaptation.rules.rates import checked


class LearnedRate(nn.Module):
    """A learned scalar, wherever a rule takes a rate: the same at all inner steps, learned by the outer loop.

    With ``positive=True`` it is ρ·eˣ with a learned x that starts at 0, so that it begins exactly at ρ, stays
    positive, and an outer step of size s on x changes it by a factor of about 1 + s.

    Args:
        initial: ρ, where it starts.
        positive: whether it stays positive.

    Raises:
        ValueError: ``initial`` is negative or not finite, or 0 with ``positive=True``.

    >>> import fewstep
    >>> rule = fewstep.Adam(LearnedRate(0.01, positive=True))
    >>> [name for name, _ in rule.named_parameters()]
    ['lr.exponent']
    >>> print(f"{rule.lr():.4f}")
    0.0100
    """

    initial: Tensor

    def __init__(self, initial: float, positive: bool = False) -> None:
        super().__init__()
        start = torch.tensor(float(checked(self, "initial", initial, positive)))
        self.positive = positive
        if positive:
            self.register_buffer("initial", start)  # saved: without it the exponent says nothing
            self.exponent = nn.Parameter(torch.zeros_like(start))
        else:
            self.value = nn.Parameter(start)

    def forward(self, step: int = 0) -> Tensor:
        """The rate, a 0-dim tensor."""
        if not self.positive:
            return self.value
        return self.initial * self.exponent.exp()

    def extra_repr(self) -> str:
        return f"{self().item():g}" + (", positive=True" if self.positive else "")

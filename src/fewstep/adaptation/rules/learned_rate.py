"""A learned scalar rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewstep.adaptation.rules.rates import checked
from fewstep.arguments import check_truth


class LearnedRate(nn.Module):
    """A learned scalar, for any argument of a rule that is a rate; the same at all inner steps.

    With ``positive=True`` the rate is ρ·eˣ with a learned x that starts at 0. It stays positive, and an outer step of
    size s on x multiplies it by about 1 + s.

    Args:
        initial: ρ, the initial value.
        positive: whether the rate stays positive.

    Raises:
        TypeError: ``initial`` is not a number.
        ValueError: ``initial`` is negative or not finite, or 0 with ``positive=True``.

    Examples:
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
        check_truth("LearnedRate", positive=positive)
        start = torch.tensor(float(checked(self, "initial", initial, positive)))
        self.positive = positive
        if positive:
            self.register_buffer("initial", start)  # saved, since the exponent is relative to it
            self.exponent = nn.Parameter(torch.zeros_like(start))
        else:
            self.value = nn.Parameter(start)

    def forward(self, step: int = 0) -> Tensor:
        """The rate, a scalar tensor.

        Args:
            step: the inner step, which has no effect.
        """
        if not self.positive:
            return self.value
        return self.initial * self.exponent.exp()

    def extra_repr(self) -> str:
        return f"{self().item():g}" + (", positive=True" if self.positive else "")

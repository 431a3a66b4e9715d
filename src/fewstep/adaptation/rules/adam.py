"""Adam as an inner update."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.adaptation.rules.arithmetic import averaged, averaged_squares, safe_sqrt, times, zeros
from fewstep.adaptation.rules.rates import Rate, checked, checked_betas, described, keep_rate, rate_at
from fewstep.adaptation.rules.rule import Params
from fewstep.adaptation.rules.weight_decay import decayed
from fewstep.arguments import check_truth

Moments = tuple[Any, ...]
"""First moments, second moments, the number of steps, and with AMSGrad the maximum of the second moments."""


class Adam(nn.Module):
    """Adam, with moments that start at 0 for each task (Kingma and Ba 2015, Algorithm 1).

    φ ← φ − α·m̂/(√v̂ + ε) with m ← β₁·m + (1 − β₁)·g, m̂ = m/(1 − β₁ᵗ), v ← β₂·v + (1 − β₂)·g², v̂ = v/(1 − β₂ᵗ).

    The numbers are those of ``torch.optim.Adam``. The derivative of the update is finite where a gradient is exactly 0.

    Args:
        lr: the learning rate α: a number, a scalar tensor, a learned ``nn.Parameter`` or
            [`LearnedRate`][fewstep.LearnedRate], or a schedule ``step -> rate`` with steps from 0.
        betas: decay rates of the first and second moments.
        eps: ε, added to the root of the second moment. Where a gradient is exactly 0, the derivative of the update
            with respect to it is −α/ε.
        weight_decay: λ in g = ∇L(φ) + λ·φ (an L2 penalty, as in ``torch.optim.Adam``); the same types as for ``lr``.
        amsgrad: whether to divide by the largest v so far (Reddi et al. 2018, Algorithm 2).

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of range.

    Examples:
        >>> import torch, fewstep
        >>> theta, x = {"w": torch.tensor(1.0)}, torch.tensor(1.0)
        >>> phi = fewstep.adapt(lambda params, x: (params["w"] * x).square(), theta, x, Adam(0.1), steps=1)
        >>> print(f"{phi['w']:.4f}")
        0.9000
    """

    lr: Rate
    weight_decay: Rate

    def __init__(
        self,
        lr: Rate,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: Rate = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__()
        keep_rate(self, "lr", lr, positive=True)
        keep_rate(self, "weight_decay", weight_decay)
        check_truth(self._get_name(), amsgrad=amsgrad)
        self.betas = checked_betas(self, betas)
        self.eps, self.amsgrad = checked(self, "eps", eps), amsgrad

    def init(self, params: Params) -> Moments:
        start = zeros(params)
        return (start, start, 0, start) if self.amsgrad else (start, start, 0)

    def update(self, params: Params, grads: Params, state: Moments, step: int, loss: Tensor) -> tuple[Params, Moments]:
        grads = decayed(self, params, grads, step)
        return self.moved(params, grads, state, rate_at(self, "lr", step))

    def moved(self, params: Params, grads: Params, state: Moments, lr: float | Tensor) -> tuple[Params, Moments]:
        """Take one step of Algorithm 1, without weight decay."""
        beta1, beta2 = self.betas
        first = averaged(beta1, state[0], grads)
        second = averaged_squares(beta2, state[1], grads)
        count = state[2] + 1
        scale1, scale2 = _weight_seen(beta1, count), _weight_seen(beta2, count)
        size = {n: torch.maximum(state[3][n], second[n]) for n in params} if self.amsgrad else second
        moved = {n: params[n] - times(lr, first[n] / scale1) / (safe_sqrt(size[n] / scale2) + self.eps) for n in params}
        return moved, (first, second, count, size) if self.amsgrad else (first, second, count)

    def extra_repr(self) -> str:
        return described(self, lr=None, betas=None, eps=1e-8, weight_decay=0, amsgrad=False)


def _weight_seen(beta: float, count: Tensor | int) -> Tensor | float:
    """1 − βᵗ; for a tensor t computed without cancellation."""
    if isinstance(count, int):
        return 1 - beta**count
    return 1.0 if beta == 0 else -torch.expm1(count * math.log(beta))

"""Adagrad as an inner update."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewstep.adaptation.rules.arithmetic import minus, safe_sqrt, squared
from fewstep.adaptation.rules.rates import Rate, checked, described, keep_rate, rate_at
from fewstep.adaptation.rules.rule import Params
from fewstep.adaptation.rules.weight_decay import decayed


class Adagrad(nn.Module):
    """Adagrad with a diagonal matrix (Duchi et al. 2011).

    φ ← φ − α·g/(√s + ε) with s ← s + g². The numbers are those of ``torch.optim.Adagrad``. The derivative of the update
    is finite where a gradient is exactly 0.

    Args:
        lr: the learning rate α: a number, a scalar tensor, a learned ``nn.Parameter`` or
            [`LearnedRate`][fewstep.LearnedRate], or a schedule ``step -> rate`` with steps from 0.
        lr_decay: η; the learning rate of step k, from 0, is α/(1 + k·η).
        initial_accumulator_value: s before the first step.
        eps: ε, added to the root.
        weight_decay: λ in g = ∇L(φ) + λ·φ; the same types as for ``lr``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of range.

    Examples:
        >>> import torch, fewstep
        >>> theta, x = {"w": torch.tensor(1.0)}, torch.tensor(1.0)
        >>> phi = fewstep.adapt(lambda params, x: (params["w"] * x).square(), theta, x, Adagrad(0.1), steps=1)
        >>> print(f"{phi['w']:.4f}")
        0.9000
    """

    lr: Rate
    weight_decay: Rate

    def __init__(
        self,
        lr: Rate,
        *,
        lr_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        weight_decay: Rate = 0.0,
    ) -> None:
        super().__init__()
        keep_rate(self, "lr", lr, positive=True)
        keep_rate(self, "weight_decay", weight_decay)
        self.lr_decay, self.eps = checked(self, "lr_decay", lr_decay), checked(self, "eps", eps)
        start = checked(self, "initial_accumulator_value", initial_accumulator_value)
        self.initial_accumulator_value = start

    def init(self, params: Params) -> Params:
        start = self.initial_accumulator_value
        return {name: torch.full_like(value, start) for name, value in params.items()}

    def update(self, params: Params, grads: Params, state: Params, step: int, loss: Tensor) -> tuple[Params, Params]:
        grads = decayed(self, params, grads, step)
        sums = {name: state[name] + squared(grads[name]) for name in params}
        direction = {name: grads[name] / (safe_sqrt(sums[name]) + self.eps) for name in params}
        return minus(params, direction, rate_at(self, "lr", step) / (1 + step * self.lr_decay)), sums

    def extra_repr(self) -> str:
        return described(self, lr=None, lr_decay=0, initial_accumulator_value=0, eps=1e-10, weight_decay=0)

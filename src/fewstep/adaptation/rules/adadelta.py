"""Adadelta as an inner update."""

from __future__ import annotations

from torch import Tensor, nn

from fewstep.adaptation.rules.arithmetic import averaged_squares, minus, safe_sqrt, zeros
from fewstep.adaptation.rules.rates import Rate, checked, described, keep_rate, rate_at
from fewstep.adaptation.rules.rule import Params
from fewstep.adaptation.rules.weight_decay import decayed


class Adadelta(nn.Module):
    """Adadelta (Zeiler 2012, Algorithm 1).

    φ ← φ − α·δ with δ = √(u + ε)/√(v + ε)·g, where v and u are running averages of g² and δ². The numbers are those of
    ``torch.optim.Adadelta``.

    Args:
        lr: α, which is 1 in the paper: a number, a scalar tensor, a learned ``nn.Parameter`` or
            [`LearnedRate`][fewstep.LearnedRate], or a schedule ``step -> rate`` with steps from 0.
        rho: decay rate of the averages.
        eps: ε, added under both roots.
        weight_decay: λ in g = ∇L(φ) + λ·φ; the same types as for ``lr``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of range.

    Examples:
        >>> import torch, fewstep
        >>> theta, x = {"w": torch.tensor(1.0)}, torch.tensor(1.0)
        >>> phi = fewstep.adapt(lambda params, x: (params["w"] * x).square(), theta, x, Adadelta(), steps=1)
        >>> print(f"{phi['w']:.4f}")
        0.9968
    """

    lr: Rate
    weight_decay: Rate

    def __init__(self, lr: Rate = 1.0, rho: float = 0.9, eps: float = 1e-6, *, weight_decay: Rate = 0.0) -> None:
        super().__init__()
        keep_rate(self, "lr", lr, positive=True)
        keep_rate(self, "weight_decay", weight_decay)
        self.rho, self.eps = checked(self, "rho", rho, below=1), checked(self, "eps", eps)

    def init(self, params: Params) -> tuple[Params, Params]:
        start = zeros(params)
        return start, start

    def update(
        self, params: Params, grads: Params, state: tuple[Params, Params], step: int, loss: Tensor
    ) -> tuple[Params, tuple[Params, Params]]:
        grads = decayed(self, params, grads, step)
        squares = averaged_squares(self.rho, state[0], grads)
        change = {
            name: safe_sqrt(state[1][name] + self.eps) / safe_sqrt(squares[name] + self.eps) * grads[name]
            for name in params
        }
        return minus(params, change, rate_at(self, "lr", step)), (
            squares,
            averaged_squares(self.rho, state[1], change),
        )

    def extra_repr(self) -> str:
        return described(self, lr=None, rho=0.9, eps=1e-6, weight_decay=0)

"""RMSprop as an inner update."""

from __future__ import annotations

from torch import Tensor, nn

from fewstep.adaptation.rules.arithmetic import averaged, averaged_squares, minus, safe_sqrt, squared, times, zeros
from fewstep.adaptation.rules.rates import Rate, checked, described, is_zero, keep_rate, rate_at
from fewstep.adaptation.rules.rule import Params
from fewstep.adaptation.rules.weight_decay import decayed
from fewstep.arguments import check_truth

State = tuple[Params, Params, Params]
"""Averages of the squared gradients, averages of the gradients (if centered), and the momentum (if not 0)."""


class RMSprop(nn.Module):
    """RMSprop (Tieleman and Hinton 2012, lecture 6.5).

    φ ← φ − α·g/(√v + ε) with v ← ρ·v + (1 − ρ)·g². The numbers are those of ``torch.optim.RMSprop``, with one
    exception: where rounding makes a centered v negative, 0 is used, and PyTorch's result is NaN. The derivative of the
        update is
    finite where a gradient is exactly 0.

    Args:
        lr: the learning rate α: a number, a scalar tensor, a learned ``nn.Parameter`` or
            [`LearnedRate`][fewstep.LearnedRate], or a schedule ``step -> rate`` with steps from 0.
        alpha: ρ, the decay rate of the averages.
        eps: ε, added to the root.
        weight_decay: λ in g = ∇L(φ) + λ·φ; the same types as for ``lr``.
        momentum: μ in m ← μ·m + g/(√v + ε), φ ← φ − α·m; the same types as for ``lr``.
        centered: whether to replace v by v − ḡ², where ḡ is the average gradient (Graves 2013, equations 38 to 45).

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of range.

    Examples:
        >>> import torch, fewstep
        >>> theta, x = {"w": torch.tensor(1.0)}, torch.tensor(1.0)
        >>> phi = fewstep.adapt(lambda params, x: (params["w"] * x).square(), theta, x, RMSprop(0.01), steps=1)
        >>> print(f"{phi['w']:.4f}")
        0.9000
    """

    lr: Rate
    momentum: Rate
    weight_decay: Rate

    def __init__(
        self,
        lr: Rate,
        alpha: float = 0.99,
        eps: float = 1e-8,
        *,
        weight_decay: Rate = 0.0,
        momentum: Rate = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__()
        keep_rate(self, "lr", lr, positive=True)
        keep_rate(self, "momentum", momentum)
        keep_rate(self, "weight_decay", weight_decay)
        self.alpha, self.eps = checked(self, "alpha", alpha, below=1), checked(self, "eps", eps)
        check_truth("RMSprop", centered=centered)
        self.centered = centered

    def init(self, params: Params) -> State:
        start = zeros(params)
        return start, start if self.centered else {}, {} if is_zero(self.momentum) else start

    def update(self, params: Params, grads: Params, state: State, step: int, loss: Tensor) -> tuple[Params, State]:
        squares, means, momenta = state
        grads = decayed(self, params, grads, step)
        variances = squares = averaged_squares(self.alpha, squares, grads)
        if self.centered:
            means = averaged(self.alpha, means, grads)
            variances = {name: (squares[name] - squared(means[name])).clamp(min=0) for name in params}
        direction = {name: grads[name] / (safe_sqrt(variances[name]) + self.eps) for name in params}
        if not is_zero(self.momentum):
            momentum = rate_at(self, "momentum", step)
            direction = momenta = {name: times(momentum, momenta[name]) + direction[name] for name in params}
        return minus(params, direction, rate_at(self, "lr", step)), (squares, means, momenta)

    def extra_repr(self) -> str:
        return described(self, lr=None, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False)

"""Gradient descent with momentum and weight decay."""

from __future__ import annotations

from torch import Tensor, nn

from fewstep.adaptation.rules.arithmetic import minus, plus, times, zeros
from fewstep.adaptation.rules.rates import Rate, checked, described, is_zero, keep_rate, rate_at
from fewstep.adaptation.rules.rule import Params
from fewstep.adaptation.rules.weight_decay import decayed
from fewstep.arguments import check_truth


class GradientDescent(nn.Module):
    """Gradient descent with optional momentum and weight decay (MAML, section 2.2, without either).

    φ_{k+1} = φ_k − α·m_{k+1} with m_{k+1} = μ·m_k + ∇L(φ_k).

    The arguments and numbers are those of ``torch.optim.SGD``. ``fewstep.SGD`` is another name of this class.

    Args:
        lr: the inner learning rate α: a number, a scalar tensor, a learned ``nn.Parameter`` or
            [`LearnedRate`][fewstep.LearnedRate], or a schedule ``step -> rate`` with steps from 0.
        momentum: μ; the same types as for ``lr``.
        dampening: d in m_{k+1} = μ·m_k + (1 − d)·∇L(φ_k), from the second step on.
        nesterov: whether to use φ_{k+1} = φ_k − α·(∇L(φ_k) + μ·m_{k+1}).
        weight_decay: λ, which replaces ∇L(φ) by ∇L(φ) + λ·φ; the same types as for ``lr``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of range, or ``nesterov`` is used without momentum or with dampening.

    Examples:
        >>> import torch, fewstep
        >>> rule = GradientDescent(lr=lambda step: 0.1 / (step + 1), momentum=0.9)
        >>> theta, x = {"w": torch.tensor(1.0)}, torch.tensor(1.0)
        >>> phi = fewstep.adapt(lambda params, x: (params["w"] * x).square(), theta, x, rule, steps=1)
        >>> print(f"{phi['w']:.4f}")
        0.8000
    """

    lr: Rate
    momentum: Rate
    weight_decay: Rate

    def __init__(
        self,
        lr: Rate,
        momentum: Rate = 0.0,
        *,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: Rate = 0.0,
    ) -> None:
        super().__init__()
        check_truth("GradientDescent", nesterov=nesterov)
        keep_rate(self, "lr", lr, positive=True)
        keep_rate(self, "momentum", momentum)
        keep_rate(self, "weight_decay", weight_decay)
        self.dampening, self.nesterov = checked(self, "dampening", dampening), nesterov
        if nesterov and (is_zero(self.momentum) or dampening):
            raise ValueError(
                "GradientDescent: nesterov=True needs momentum and no dampening; "
                f"got momentum={momentum!r}, dampening={dampening!r}."
            )

    def init(self, params: Params) -> Params:
        return {} if is_zero(self.momentum) else zeros(params)

    def update(self, params: Params, grads: Params, state: Params, step: int, loss: Tensor) -> tuple[Params, Params]:
        if not is_zero(self.weight_decay):
            grads = decayed(self, params, grads, step)
        if not is_zero(self.momentum):
            momentum = rate_at(self, "momentum", step)
            fresh = grads
            if self.dampening and step > 0:
                fresh = {name: (1 - self.dampening) * value for name, value in grads.items()}
            state = {name: times(momentum, state[name]) + fresh[name] for name in params}
            grads = plus(grads, state, momentum) if self.nesterov else state
        return minus(params, grads, rate_at(self, "lr", step)), state

    def extra_repr(self) -> str:
        return described(self, lr=None, momentum=0, dampening=0, nesterov=False, weight_decay=0)


SGD = GradientDescent

"""AdamW as an inner update."""

from __future__ import annotations

from torch import Tensor

from fewstep.adaptation.rules.adam import Adam, Moments
from fewstep.adaptation.rules.arithmetic import times
from fewstep.adaptation.rules.rates import Rate, described, rate_at
from fewstep.adaptation.rules.rule import Params


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, Algorithm 2).

    φ ← (1 − α·λ)·φ, then the step of [`Adam`][fewstep.Adam]. The numbers are those of ``torch.optim.AdamW``.

    Args:
        lr: the learning rate α: a number, a scalar tensor, a learned ``nn.Parameter`` or
            [`LearnedRate`][fewstep.LearnedRate], or a schedule ``step -> rate`` with steps from 0.
        betas: decay rates of the first and second moments.
        eps: added to the root of the second moment.
        weight_decay: λ; the same types as for ``lr``.
        amsgrad: whether to divide by the largest second moment so far.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of range.

    Examples:
        >>> import torch, fewstep
        >>> theta, x = {"w": torch.tensor(1.0)}, torch.tensor(1.0)
        >>> phi = fewstep.adapt(lambda params, x: (params["w"] * x).square(), theta, x, AdamW(0.1), steps=1)
        >>> print(f"{phi['w']:.4f}")
        0.8990
    """

    def __init__(
        self,
        lr: Rate,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: Rate = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay=weight_decay, amsgrad=amsgrad)

    def update(self, params: Params, grads: Params, state: Moments, step: int, loss: Tensor) -> tuple[Params, Moments]:
        lr = rate_at(self, "lr", step)
        kept = 1 - lr * rate_at(self, "weight_decay", step)
        return self.moved({name: times(kept, value) for name, value in params.items()}, grads, state, lr)

    def extra_repr(self) -> str:
        return described(self, lr=None, betas=None, eps=1e-8, weight_decay=None, amsgrad=False)

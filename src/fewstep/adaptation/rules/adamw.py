"""AdamW as an inner update."""

from __future__ import annotations

from torch import Tensor

from fewstep.adaptation.rules.adam import Adam, Moments
from fewstep.adaptation.rules.arithmetic import times
from fewstep.adaptation.rules.rates import Rate, described, rate_at
from fewstep.adaptation.rules.rule import Params


class AdamW(Adam):
    """Adam with decoupled weight decay: φ ← (1 − α·λ)·φ, then Adam's step (Loshchilov and Hutter 2019, Algorithm 2).

    The numbers are those of ``torch.optim.AdamW``.

    Args:
        lr: the step size α: a number, a scalar tensor, an ``nn.Parameter`` (then learned), or a schedule.
        betas: decay of the first and second moments.
        eps: added to the root of the second moment.
        weight_decay: λ; likewise a rate.
        amsgrad: divide by the largest second moment so far.

    Raises:
        ValueError: a number out of range.
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

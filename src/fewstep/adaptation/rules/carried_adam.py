"""Adam whose moments go on from task to task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fewstep.adaptation.rules.adam import Adam, Moments
from fewstep.adaptation.rules.learned_rates import parameter_key
from fewstep.adaptation.rules.rates import Rate
from fewstep.adaptation.rules.rule import Params


class CarriedAdam(Adam):
    """Adam whose moments go on from task to task: Reptile's inner loop, with β₁ = 0.

    The paper (Nichol et al. 2018) only names Adam; the authors' code puts a task's parameters back and not the
    optimiser. It matters: from moments of 0 the first step of each task moves every parameter by ``lr``, however small
    its gradient. Tasks at test start from the same moments and leave nothing behind.

    Args:
        params: the adapted parameters by name, such as ``dict(model.named_parameters())``.
        lr: the step size: a number, a scalar tensor, an ``nn.Parameter`` (then learned), or a schedule.
        betas: decay of the first and second moments.
        eps: added to the root of the second moment.
        weight_decay: λ in g = ∇L(φ) + λ·φ; likewise a rate.

    Raises:
        KeyError: by the learner, if a parameter is adapted that the rule was not made for.
        ValueError: a number out of range.
    """

    count: Tensor
    """Steps that the moments have seen."""

    def __init__(
        self,
        params: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
        lr: Rate,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: Rate = 0.0,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay=weight_decay)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        for name, value in dict(params).items():
            for moment in ("first", "second"):
                self.register_buffer(f"{moment}/{parameter_key(name)}", torch.zeros_like(value, requires_grad=False))

    def init(self, params: Params) -> Moments:
        buffers = dict(self.named_buffers())
        missing = [name for name in params if f"first/{parameter_key(name)}" not in buffers]
        if missing:
            raise KeyError(
                f"CarriedAdam has no moments for the adapted parameter(s) {missing}. Make it from the parameters that "
                "are adapted."
            )
        first, second = ({n: buffers[f"{moment}/{parameter_key(n)}"] for n in params} for moment in ("first", "second"))
        return first, second, self.count

    def carry(self, state: Moments) -> None:
        """Keeps the moments that a task ended with."""
        with torch.no_grad():
            tree_map(Tensor.copy_, self.init(state[0]), state)

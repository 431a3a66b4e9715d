"""Adam with moments that continue from task to task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fewstep.adaptation.rules.adam import Adam, Moments
from fewstep.adaptation.rules.learned_rates import parameter_key
from fewstep.adaptation.rules.rates import Rate
from fewstep.adaptation.rules.rule import Params
from fewstep.arguments import named_tensors


class CarriedAdam(Adam):
    """Adam with moments that continue from task to task, as in the authors' code of Reptile (with β₁ = 0).

    The paper (Nichol et al. 2018) only names Adam; the authors' code resets the parameters for each task but not the
    state of the optimiser. The difference matters: from moments of 0, the first step changes every parameter by ``lr``,
    no matter how small its gradient is. In evaluation, all tasks start from the same moments and do not change them.

    Args:
        params: the adapted parameters by name, such as ``dict(model.named_parameters())``.
        lr: the learning rate: a number, a scalar tensor, a learned ``nn.Parameter`` or
            [`LearnedRate`][fewstep.LearnedRate], or a schedule ``step -> rate`` with steps from 0.
        betas: decay rates of the first and second moments.
        eps: added to the root of the second moment.
        weight_decay: λ in g = ∇L(φ) + λ·φ; the same types as for ``lr``.

    Raises:
        KeyError: when the learner is made, a parameter is adapted that ``params`` does not hold.
        TypeError: an argument has the wrong type.
        ValueError: a number is out of range.

    Examples:
        >>> import torch, fewstep
        >>> model = torch.nn.Linear(1, 1)
        >>> rule = CarriedAdam(model.named_parameters(), lr=1e-3, betas=(0.0, 0.999))
        >>> learner = fewstep.reptile(model, fewstep.mse, rule, steps=5)
    """

    count: Tensor
    """The number of steps that the moments have accumulated."""

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
        for name, value in named_tensors("CarriedAdam", params=params).items():
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
        """Store the moments at the end of a task.

        Args:
            state: the state after the last inner step.
        """
        with torch.no_grad():
            tree_map(Tensor.copy_, self.init(state[0]), state)

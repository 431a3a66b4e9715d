"""Learned learning rates, one per entry or per tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fewstep.adaptation.rules.rates import checked
from fewstep.adaptation.rules.rule import Params


class LearnedRates(nn.Module):
    """φ_{k+1} = φ_k − α_k ⊙ ∇L(φ_k) with learned α: one rate per entry or per tensor, shared by the steps or not.

    Per entry and shared is Meta-SGD (Li et al. 2017, equation 3); per tensor and per step is the rule of MAML++
    (Antoniou et al. 2018, section 4, "LSLR").

    Args:
        params: the adapted parameters by name, such as ``dict(model.named_parameters())``; only names, shapes and
            dtypes are used.
        lr: initial value of every rate.
        per: ``"parameter"`` for a rate for every entry, ``"tensor"`` for one for every tensor.
        steps: ``None`` shares the rates between the steps; a number gives each step its own, and steps beyond it
            (more at test than in training) use the last.
        positive: whether rates stay positive: α = lr·eˣ with a learned x, in ``rates``, that starts at 0.

    Raises:
        KeyError: by the learner, if a parameter is adapted that the rule was not made for.
        ValueError: a choice or number that cannot work.
    """

    initial: Tensor

    def __init__(
        self,
        params: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
        lr: float,
        per: str,
        steps: int | None = None,
        *,
        positive: bool = False,
    ) -> None:
        super().__init__()
        if per not in ("parameter", "tensor"):
            raise ValueError(f'LearnedRates: per must be "parameter" or "tensor"; got {per!r}.')
        if steps is not None and steps < 1:
            raise ValueError(f"LearnedRates: steps must be None or at least 1; got {steps}.")
        lr = checked(self, "lr", lr, positive)
        self.steps, self.positive = steps, positive
        if positive:
            self.register_buffer("initial", torch.tensor(float(lr)))  # saved: exponents alone are no rates
        lead = () if steps is None else (steps,)
        start = 0.0 if positive else lr
        self.rates = nn.ParameterDict(
            {
                parameter_key(name): nn.Parameter(
                    value.new_full(lead + (value.shape if per == "parameter" else ()), start)
                )
                for name, value in dict(params).items()
            }
        )

    def init(self, params: Params) -> None:
        missing = [name for name in params if parameter_key(name) not in self.rates]
        if missing:
            raise KeyError(
                f"LearnedRates has no rate for the adapted parameter(s) {missing}; it was made for "
                f"{[key.replace('/', '.') for key in self.rates]}. Make it from the parameters that are adapted."
            )

    def update(self, params: Params, grads: Params, state: None, step: int, loss: Tensor) -> tuple[Params, None]:
        return {name: params[name] - self.rate(name, step) * grads[name] for name in params}, state

    def rate(self, name: str, step: int = 0) -> Tensor:
        """The rate of a parameter at a step, a scalar or a tensor of the parameter's shape."""
        rates: Tensor = self.rates[parameter_key(name)]
        if self.steps is not None:
            rates = rates[min(step, self.steps - 1)]
        return self.initial.to(rates.dtype) * rates.exp() if self.positive else rates


def parameter_key(name: str) -> str:
    """The name under which a module keeps something of a parameter; a dot is not allowed there."""
    return name.replace(".", "/")

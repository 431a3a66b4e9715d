"""Learned learning rates, one per parameter entry or per tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fewstep.adaptation.rules.rates import checked
from fewstep.adaptation.rules.rule import Params
from fewstep.arguments import check_truth, check_whole, named_tensors


class LearnedRates(nn.Module):
    """Gradient descent with learned learning rates, one per parameter entry or per tensor.

    φ_{k+1} = φ_k − α_k ⊙ ∇L(φ_k). One rate per entry, shared by all steps, is Meta-SGD (Li et al. 2017, equation 3);
    one rate per tensor and step is the rule of MAML++ (Antoniou et al. 2018, section 4, "LSLR").

    Args:
        params: the adapted parameters by name, such as ``dict(model.named_parameters())``. Only names, shapes and
            dtypes are used.
        lr: the initial value of every rate.
        per: ``"parameter"`` for a rate for every entry of every parameter, ``"tensor"`` for a rate for every tensor.
        steps: the number of steps that have their own rates; further steps use the last ones. ``None`` shares the rates
            between all steps.
        positive: whether rates stay positive: α = lr·eˣ, where ``rates`` holds the learned x, which start at 0.

    Raises:
        KeyError: when the learner is made, a parameter is adapted that ``params`` does not hold.
        TypeError: ``lr`` is not a number.
        ValueError: ``per``, ``steps`` or ``lr`` is out of range.

    Examples:
        >>> import torch, fewstep
        >>> model = torch.nn.Linear(3, 1)
        >>> rule = LearnedRates(model.named_parameters(), lr=0.1, per="tensor", steps=5)
        >>> rule.rates["weight"].shape
        torch.Size([5])
        >>> learner = fewstep.MetaLearner(model, fewstep.mse, rule=rule, steps=5)
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
        if steps is not None:
            check_whole("LearnedRates", steps=steps)
        check_truth("LearnedRates", positive=positive)
        lr = checked(self, "lr", lr, positive)
        self.steps, self.positive = steps, positive
        if positive:
            self.register_buffer("initial", torch.tensor(float(lr)))  # saved, since the exponents are relative to it
        lead = () if steps is None else (steps,)
        start = 0.0 if positive else lr
        self.rates = nn.ParameterDict(
            {
                parameter_key(name): nn.Parameter(
                    value.new_full(lead + (value.shape if per == "parameter" else ()), start)
                )
                for name, value in named_tensors("LearnedRates", params=params).items()
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
        """The rate of a parameter at an inner step.

        Args:
            name: the name of the parameter.
            step: the inner step, from 0.

        Returns:
            A scalar, or a tensor with the shape of the parameter.
        """
        rates: Tensor = self.rates[parameter_key(name)]
        if self.steps is not None:
            rates = rates[min(step, self.steps - 1)]
        return self.initial.to(rates.dtype) * rates.exp() if self.positive else rates


def parameter_key(name: str) -> str:
    """The name of an attribute of a module that belongs to a parameter; attribute names may not contain dots."""
    return name.replace(".", "/")

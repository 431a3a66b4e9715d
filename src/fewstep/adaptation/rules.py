"""Update rules: how one inner step moves the parameters, given their gradients.

A rule is pure: it returns new tensors and writes nothing. Whatever it learns are its ``nn.Parameter``s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

Params = dict[str, Tensor]
Moments = tuple[Params, Params, "Tensor | int"]
"""Adam's first and second moments, and the steps that they have seen."""


class Rule(Protocol):
    """One inner update. A rule with learned weights is also an ``nn.Module`` (as all of this package are).

    A rule may also have ``carry(state)``: while training, the first task of each meta-batch is adapted to once ahead,
    and ``carry`` is given the state at the end of that, to keep in buffers what this meta-batch and later ones start
    from.
    """

    def init(self, params: Params) -> Any:
        """The state before the first step: any pytree of tensors, e.g. a momentum per parameter."""
        ...

    def update(self, params: Params, grads: Params, state: Any, step: int, loss: Tensor) -> tuple[Params, Any]:
        """New parameters and state after inner step ``step`` (from 0), at whose start the support loss is ``loss``."""
        ...


class GradientDescent(nn.Module):
    """φ_{k+1} = φ_k − α·m_{k+1} with m_{k+1} = μ·m_k + ∇L(φ_k) (MAML, section 2.2, where μ = 0).

    Args:
        lr: the inner learning rate α.
        momentum: μ, as in ``torch.optim.SGD``.
    """

    def __init__(self, lr: float, momentum: float = 0.0) -> None:
        super().__init__()
        self.lr, self.momentum = _rate(lr, "GradientDescent"), momentum

    def init(self, params: Params) -> Params:
        return {name: torch.zeros_like(value) for name, value in params.items()} if self.momentum else {}

    def update(self, params: Params, grads: Params, state: Params, step: int, loss: Tensor) -> tuple[Params, Params]:
        if self.momentum:
            grads = state = {name: self.momentum * state[name] + grads[name] for name in params}
        return {name: torch.sub(params[name], grads[name], alpha=self.lr) for name in params}, state

    def extra_repr(self) -> str:
        return f"lr={self.lr}" + (f", momentum={self.momentum}" if self.momentum else "")


class Adam(nn.Module):
    """Adam as an inner update (Kingma and Ba 2015, Algorithm 1), whose moments start at 0 in each task.

    Args:
        lr: the step size.
        betas: decay of the first and second moments.
        eps: added to the root of the second moment. That root has no derivative at 0, so differentiating through
            this rule needs gradients that are not exactly 0; first-order methods do not mind.
    """

    def __init__(self, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__()
        self.lr, self.betas, self.eps = _rate(lr, "Adam"), betas, eps

    def init(self, params: Params) -> Moments:
        zeros = {name: torch.zeros_like(value) for name, value in params.items()}
        return zeros, zeros, 0

    def update(self, params: Params, grads: Params, state: Moments, step: int, loss: Tensor) -> tuple[Params, Moments]:
        beta1, beta2 = self.betas
        first = {n: beta1 * state[0][n] + (1 - beta1) * grads[n] for n in params}
        second = {n: beta2 * state[1][n] + (1 - beta2) * grads[n].square() for n in params}
        count = state[2] + 1
        scale1, scale2 = _weight_seen(beta1, count), _weight_seen(beta2, count)
        moved = {
            n: params[n] - self.lr * (first[n] / scale1) / ((second[n] / scale2).sqrt() + self.eps) for n in params
        }
        return moved, (first, second, count)

    def extra_repr(self) -> str:
        return f"lr={self.lr}, betas={self.betas}"


class CarriedAdam(Adam):
    """Adam whose moments go on from task to task: Reptile's inner loop, with β₁ = 0.

    The paper (Nichol et al. 2018) only names Adam; the authors' code puts a task's parameters back and not the
    optimiser. It matters: from moments of 0 the first step of each task moves every parameter by ``lr``, however small
    its gradient. Tasks at test start from the same moments and leave nothing behind.

    Args:
        params: the adapted parameters by name, such as ``dict(model.named_parameters())``.
        lr: the step size.
        betas: decay of the first and second moments.
        eps: added to the root of the second moment.
    """

    count: Tensor
    """Steps that the moments have seen."""

    def __init__(
        self,
        params: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(lr, betas, eps)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        for name, value in dict(params).items():
            for moment in ("first", "second"):
                self.register_buffer(f"{moment}/{_key(name)}", torch.zeros_like(value, requires_grad=False))

    def init(self, params: Params) -> Moments:
        buffers = dict(self.named_buffers())
        missing = [name for name in params if f"first/{_key(name)}" not in buffers]
        if missing:
            raise KeyError(
                f"CarriedAdam has no moments for the adapted parameter(s) {missing}. Make it from the parameters that "
                "are adapted."
            )
        first, second = ({n: buffers[f"{moment}/{_key(n)}"] for n in params} for moment in ("first", "second"))
        return first, second, self.count

    def carry(self, state: Moments) -> None:
        """Keeps the moments that a task ended with."""
        with torch.no_grad():
            tree_map(Tensor.copy_, self.init(state[0]), state)


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
    """

    def __init__(
        self, params: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]], lr: float, per: str, steps: int | None = None
    ) -> None:
        super().__init__()
        if per not in ("parameter", "tensor"):
            raise ValueError(f'LearnedRates: per must be "parameter" or "tensor"; got {per!r}.')
        if steps is not None and steps < 1:
            raise ValueError(f"LearnedRates: steps must be None or at least 1; got {steps}.")
        self.steps = steps
        lead = () if steps is None else (steps,)
        self.rates = nn.ParameterDict(
            {
                _key(name): nn.Parameter(value.new_full(lead + (value.shape if per == "parameter" else ()), lr))
                for name, value in dict(params).items()
            }
        )

    def init(self, params: Params) -> None:
        missing = [name for name in params if _key(name) not in self.rates]
        if missing:
            raise KeyError(
                f"LearnedRates has no rate for the adapted parameter(s) {missing}; it was made for "
                f"{[key.replace('/', '.') for key in self.rates]}. Make it from the parameters that are adapted."
            )

    def update(self, params: Params, grads: Params, state: None, step: int, loss: Tensor) -> tuple[Params, None]:
        return {name: params[name] - self.rate(name, step) * grads[name] for name in params}, state

    def rate(self, name: str, step: int = 0) -> Tensor:
        """The rate of a parameter at a step, a scalar or a tensor of the parameter's shape."""
        rates: Tensor = self.rates[_key(name)]
        return rates if self.steps is None else rates[min(step, self.steps - 1)]


def _key(name: str) -> str:
    return name.replace(".", "/")  # a dot is not allowed in the name of a parameter


def _weight_seen(beta: float, count: Tensor | int) -> Tensor | float:
    """1 − βᵗ; of a tensor t without the rounding of a difference from 1."""
    if isinstance(count, int):
        return 1 - beta**count
    return 1.0 if beta == 0 else -torch.expm1(count * math.log(beta))


def _rate(lr: float, rule: str) -> float:
    if not lr > 0:
        raise ValueError(f"{rule}: the learning rate must be positive; got lr={lr}.")
    return lr

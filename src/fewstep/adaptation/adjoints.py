"""Adjoints: how dφ/dθ is obtained, the derivative of the adapted parameters in the shared ones.

Each is a function ``(loss, params, batch, rule, steps, adapts) -> [φ_0, …, φ_K]``; all give the same path forward
(the implicit one solves a problem of its own) and differ in what autograd finds on the way back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar
from weakref import WeakSet

import torch

from fewstep.adaptation.implicit import solve_implicitly
from fewstep.adaptation.inner_loop import Gradient, Loss, at_step, gradient_and_value, inner_loop
from fewstep.adaptation.made_again import Unchanged
from fewstep.adaptation.recomputed import RecomputedStep
from fewstep.adaptation.rules import Params, Rule
from fewstep.tasks.trees import mapped


class Adjoint(ABC):
    """A way to differentiate through adaptation.

    An adjoint of one's own says what it can do in three attributes, and calls :func:`inner_loop` with a way to take
    the gradient of each step: :func:`exact_gradient`, :func:`constant_gradient`, :func:`recomputed_gradient`, or
    another.

    >>> class LastStepOnly(Adjoint):
    ...     exact = False
    ...     def __call__(self, loss, params, batch, rule, steps, adapts):
    ...         gradients = [constant_gradient(params, batch, adapts)] * (steps - 1) + [exact_gradient]
    ...         return inner_loop(gradients, loss, params, batch, rule, adapts)
    """

    exact: ClassVar[bool] = True
    """Whether the meta-gradient is the derivative of the meta-loss, to rounding."""
    second_order: ClassVar[bool] = True
    """Whether it takes second derivatives of the support loss."""
    ends_only: ClassVar[bool] = False
    """Whether only φ_K can be differentiated, and only in θ: not φ_1 … φ_{K−1}, nor the rule."""

    @abstractmethod
    def __call__(
        self, loss: Loss, params: Params, batch: Any, rule: Rule, steps: int, adapts: Sequence[str]
    ) -> list[Params]:
        """[φ_0, …, φ_K]: the parameters before and after each inner step, φ_0 being ``params``."""


@dataclass(frozen=True)
class Unrolled(Adjoint):
    """Differentiate through the graph of the inner loop: exact; memory grows with the steps' activations.

    The usual way (MAML, equation 1) and the fastest for small networks.
    """

    def __call__(
        self, loss: Loss, params: Params, batch: Any, rule: Rule, steps: int, adapts: Sequence[str]
    ) -> list[Params]:
        return inner_loop([exact_gradient] * steps, loss, params, batch, rule, adapts)


@dataclass(frozen=True)
class Recomputed(Adjoint):
    """Keep φ_0 … φ_K and recompute the steps on the way back: exact; memory does not grow with the steps' activations.

    Random operations of the model (dropout) are replayed.

    Args:
        mode: how the product of a step's Hessian with a vector is worked out. ``"reverse"``: a backward pass through
            the gradient. The last step's graph is kept then: it is the first that the way back needs, and recomputing
            a step takes as much room. ``"forward"``: the forward-mode derivative of the gradient, which is the same
            since the Hessian is symmetric (mixed mode, Kemaev et al. 2025). It keeps the last step's graph no more than
            the others'. Where an operation has no forward-mode derivative, the backward pass is taken after all. Not
            always the smaller one: ``benchmarks/transformer.py`` measures both.

    Raises:
        ValueError: there is no such mode.
    """

    mode: str = "reverse"
    _without_forward_mode: WeakSet[Loss] = field(default_factory=WeakSet, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.mode not in ("reverse", "forward"):
            raise ValueError(f'Recomputed: mode must be "reverse" or "forward"; got {self.mode!r}.')

    def __call__(
        self, loss: Loss, params: Params, batch: Any, rule: Rule, steps: int, adapts: Sequence[str]
    ) -> list[Params]:
        mode = "reverse" if loss in self._without_forward_mode else self.mode
        note = partial(self._without_forward_mode.add, loss)
        unchanged = Unchanged.around(loss, rule)
        gradients: list[Gradient] = [RecomputedStep(mode, note, unchanged) for _ in range(steps)]
        if mode == "reverse" and steps:
            gradients[-1] = exact_gradient
        return inner_loop(gradients, loss, params, batch, rule, adapts)

    def __reduce__(self) -> tuple[Any, ...]:
        return Recomputed, (self.mode,)


@dataclass(frozen=True)
class FirstOrder(Adjoint):
    """Take the inner gradients for constants: dφ/dθ without second derivatives (MAML, section 5.2).

    With gradient descent dφ_K/dθ = I, and the meta-gradient is that of the query loss at φ_K. Learned rates still
    get their gradients.
    """

    exact: ClassVar[bool] = False
    second_order: ClassVar[bool] = False

    def __call__(
        self, loss: Loss, params: Params, batch: Any, rule: Rule, steps: int, adapts: Sequence[str]
    ) -> list[Params]:
        return inner_loop([constant_gradient(params, batch, adapts)] * steps, loss, params, batch, rule, adapts)


@dataclass(frozen=True)
class Truncated(Adjoint):
    """Differentiate through the last steps only: the inner gradients before them are constants.

    Time and memory of the second derivatives grow with ``last`` and not with the steps (truncated back-propagation,
    Shaban et al. 2019). With ``last=0`` it is :class:`FirstOrder`, with all steps :class:`Unrolled`.

    Args:
        last: how many steps are differentiated exactly.

    Raises:
        ValueError: ``last`` is negative.
    """

    last: int
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.last, int) or self.last < 0:
            raise ValueError(f"Truncated: last must be a whole number, 0 or more; got {self.last!r}.")

    def __call__(
        self, loss: Loss, params: Params, batch: Any, rule: Rule, steps: int, adapts: Sequence[str]
    ) -> list[Params]:
        last = min(self.last, steps)
        gradients = [constant_gradient(params, batch, adapts)] * (steps - last) + [exact_gradient] * last
        return inner_loop(gradients, loss, params, batch, rule, adapts)


@dataclass(frozen=True)
class Implicit(Adjoint):
    """Implicit MAML (Rajeswaran et al. 2019): dφ/dθ = (I + ∇²L(φ)/λ)⁻¹ at φ = argmin L(φ) + λ/2·‖φ − θ‖².

    The rule takes ``steps`` steps towards that minimum and no path is kept; memory does not depend on their number.
    Exact only as far as the inner problem and the linear system are solved.

    Args:
        regularization: λ.
        cg_steps: conjugate-gradient iterations for the linear system (5 in the paper).
        damping: takes λ + ``damping`` for λ in the linear system. A network's loss curves downwards in some directions
            and steeply upwards in others; damping keeps the system positive definite and well conditioned. 0 is the
            paper's equation; large values come to first order. The authors' code solves (2·I + ∇²L/12)·x = v with
            λ = 2, which is damping of 22 but for the length of x.

    Raises:
        ValueError: λ is not positive, or the damping negative.
    """

    regularization: float = 1.0
    cg_steps: int = 5
    damping: float = 0.0
    exact: ClassVar[bool] = False
    ends_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.regularization > 0:
            raise ValueError(f"Implicit: regularization must be positive; got {self.regularization}.")
        if not self.damping >= 0:
            raise ValueError(f"Implicit: damping must be 0 or more; got {self.damping}.")

    def __call__(
        self, loss: Loss, params: Params, batch: Any, rule: Rule, steps: int, adapts: Sequence[str]
    ) -> list[Params]:
        if steps == 0:
            return [params]
        start = _detached(params)
        constant = constant_gradient(start, batch, adapts)

        def proximal(loss: Loss, params: Params, names: Sequence[str], batch: Any) -> tuple[Params, torch.Tensor]:
            grads, value = constant(loss, params, names, batch)
            return {n: grads[n] + self.regularization * (params[n] - start[n]) for n in names}, value

        with torch.no_grad():
            path = inner_loop([proximal] * steps, loss, start, batch, rule, adapts)
        solution = {name: path[-1][name].detach() for name in adapts}
        stiffness = self.regularization + self.damping
        solved = solve_implicitly(at_step(loss, steps - 1), params, solution, batch, stiffness, self.cg_steps)
        return [params, *path[1:-1], {**params, **solved}]


def exact_gradient(loss: Loss, params: Params, names: Sequence[str], batch: Any) -> tuple[Params, torch.Tensor]:
    """∇_names L(params; batch) and L as parts of the graph, which keeps all activations."""
    return gradient_and_value(loss, params, names, batch)


def constant_gradient(params: Params, batch: Any, adapts: Sequence[str]) -> Gradient:
    """A way to take the gradient as a constant; what the steps do not move is the same tensors in each of them.

    Args:
        params: θ, and the parameters that are not adapted.
        batch: the support set.
        adapts: names of the parameters that the steps move.
    """
    fixed = _detached({name: value for name, value in params.items() if name not in adapts})
    constants = _detached(batch)

    def constant(loss: Loss, params: Params, names: Sequence[str], batch: Any) -> tuple[Params, torch.Tensor]:
        with torch.no_grad():
            moved = _detached({name: params[name] for name in names})
            grads, value = gradient_and_value(loss, {**fixed, **moved}, names, constants)
        return _detached(grads), value.detach()

    return constant


def _detached(tree: Any) -> Any:
    return mapped(lambda tensor: tensor.detach(), tree)

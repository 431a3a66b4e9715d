"""Adjoints: how dφ/dθ, the derivative of the adapted parameters with respect to the shared ones, is computed.

An adjoint is a function ``(loss, params, batch, rule, steps, adapts) -> [φ_0, …, φ_K]``. All adjoints compute the same
path in the forward pass, except [`Implicit`][fewstep.Implicit], which adds a proximal term; they differ in the backward
pass.
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
from fewstep.adaptation.recomputation import UnchangedCheck
from fewstep.adaptation.recomputed import RecomputedStep
from fewstep.adaptation.rules import Params, Rule
from fewstep.arguments import check_number, check_whole
from fewstep.tasks.trees import mapped


class Adjoint(ABC):
    """The interface of adjoints: how to differentiate through adaptation.

    To write your own, derive from this class, set the three class attributes, and return
    [`inner_loop`][fewstep.adaptation.inner_loop] with one gradient function per step:
    [`exact_gradient`][fewstep.adaptation.exact_gradient], the result of
    [`constant_gradient`][fewstep.adaptation.constant_gradient],
    [`recomputed_gradient`][fewstep.adaptation.recomputed_gradient], or your own.

    Examples:
        >>> class LastStepOnly(Adjoint):
        ...     exact = False
        ...     def __call__(self, loss, params, batch, rule, steps, adapts):
        ...         gradients = [constant_gradient(params, batch, adapts)] * (steps - 1) + [exact_gradient]
        ...         return inner_loop(gradients, loss, params, batch, rule, adapts)
    """

    exact: ClassVar[bool] = True
    """Whether the meta-gradient is the derivative of the meta-loss up to rounding errors."""
    second_order: ClassVar[bool] = True
    """Whether second derivatives of the support loss are needed."""
    ends_only: ClassVar[bool] = False
    """Whether only φ_K is differentiable, and only with respect to θ: neither φ_1 … φ_{K−1} nor the rule."""

    @abstractmethod
    def __call__(
        self, loss: Loss, params: Params, batch: Any, rule: Rule, steps: int, adapts: Sequence[str]
    ) -> list[Params]:
        """Compute [φ_0, …, φ_K], the parameters before and after each inner step.

        Args:
            loss: ``loss(params, batch)`` gives a scalar.
            params: φ_0 and the parameters that are not adapted, by name.
            batch: the support set.
            rule: the inner update.
            steps: the number of inner steps, K.
            adapts: names of the parameters that the inner loop changes.
        """


@dataclass(frozen=True)
class Unrolled(Adjoint):
    """Differentiate through the graph of the inner loop (MAML, equation 1).

    The meta-gradient is exact. Memory grows with the number of steps times the activations of one step. This is the
    default, and the fastest adjoint for small networks.

    Examples:
        >>> import torch, fewstep
        >>> learner = fewstep.maml(torch.nn.Linear(1, 1), fewstep.mse, 0.1, steps=3, adjoint=Unrolled())
    """

    def __call__(
        self, loss: Loss, params: Params, batch: Any, rule: Rule, steps: int, adapts: Sequence[str]
    ) -> list[Params]:
        return inner_loop([exact_gradient] * steps, loss, params, batch, rule, adapts)


@dataclass(frozen=True)
class Recomputed(Adjoint):
    """Keep only φ_0 … φ_K, and recompute the inner steps in the backward pass.

    The meta-gradient is exact. Memory grows with the number of steps times the parameters, and not with the
    activations. Random operations of the model (dropout) are repeated with the same random numbers.

    Args:
        mode: how the product of a step's Hessian with a vector is computed. ``"reverse"`` takes a backward pass through
            the gradient. The graph of the last step is kept, since the backward pass starts there. ``"forward"`` takes
            the forward-mode derivative of the gradient, which is the same because the Hessian is symmetric (mixed-mode
            differentiation, Kemaev et al. 2025), and keeps no graph. If an operation has no forward-mode derivative,
            ``"reverse"`` is used. Which mode takes less memory depends on the model;
            ``benchmarks/transformer.py`` measures both.

    Raises:
        ValueError: ``mode`` is neither ``"reverse"`` nor ``"forward"``.

    Examples:
        >>> import torch, fewstep
        >>> learner = fewstep.maml(torch.nn.Linear(1, 1), fewstep.mse, 0.1, steps=20, adjoint=Recomputed())
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
        unchanged = UnchangedCheck.of(loss, rule)
        gradients: list[Gradient] = [RecomputedStep(mode, note, unchanged) for _ in range(steps)]
        if mode == "reverse" and steps:
            gradients[-1] = exact_gradient
        return inner_loop(gradients, loss, params, batch, rule, adapts)

    def __reduce__(self) -> tuple[Any, ...]:
        return Recomputed, (self.mode,)


@dataclass(frozen=True)
class FirstOrder(Adjoint):
    """Treat the inner gradients as constants: dφ/dθ without second derivatives (MAML, section 5.2).

    With gradient descent dφ_K/dθ = I, and the meta-gradient is the gradient of the query loss at φ_K. Learned rates
    still get their gradients.

    Examples:
        >>> import torch, fewstep
        >>> learner = fewstep.maml(torch.nn.Linear(1, 1), fewstep.mse, 0.1, steps=3, adjoint=FirstOrder())
    """

    exact: ClassVar[bool] = False
    second_order: ClassVar[bool] = False

    def __call__(
        self, loss: Loss, params: Params, batch: Any, rule: Rule, steps: int, adapts: Sequence[str]
    ) -> list[Params]:
        return inner_loop([constant_gradient(params, batch, adapts)] * steps, loss, params, batch, rule, adapts)


@dataclass(frozen=True)
class Truncated(Adjoint):
    """Differentiate through the last inner steps only, and treat the inner gradients before them as constants.

    Time and memory for second derivatives grow with ``last`` and not with the number of steps (truncated
    back-propagation, Shaban et al. 2019). ``last=0`` is [`FirstOrder`][fewstep.FirstOrder]; with ``last`` equal
    to the number of steps it is [`Unrolled`][fewstep.Unrolled].

    Args:
        last: the number of steps that are differentiated exactly.

    Raises:
        ValueError: ``last`` is negative.

    Examples:
        >>> import torch, fewstep
        >>> learner = fewstep.maml(torch.nn.Linear(1, 1), fewstep.mse, 0.1, steps=20, adjoint=Truncated(last=5))
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
    """Differentiate the minimum of a regularised loss implicitly (iMAML, Rajeswaran et al. 2019, Lemma 1).

    dφ/dθ = (I + ∇²L(φ)/λ)⁻¹ at φ = argmin L(φ; support) + λ/2·‖φ − θ‖². The rule takes ``steps`` steps towards that
    minimum, and conjugate gradients solve the linear system. Memory does not depend on the number of steps. The
    meta-gradient is as exact as the solutions of the inner problem and of the linear system.

    Args:
        regularization: λ.
        cg_steps: the number of conjugate-gradient iterations; the paper uses 5.
        damping: is added to λ in the linear system only. The loss of a network has negative curvature in some
            directions and large positive curvature in others; damping makes the system positive definite and
            well-conditioned. 0 is the equation of the paper; with large values the meta-gradient approaches that of
            [`FirstOrder`][fewstep.FirstOrder]. The authors' code solves (2·I + ∇²L/12)·x = v with λ = 2, which is
            ``damping=22`` up to the length of x.

    Raises:
        ValueError: ``regularization`` is not positive, or ``damping`` is negative.

    Examples:
        >>> import torch, fewstep
        >>> adjoint = Implicit(regularization=2.0, cg_steps=5)
        >>> learner = fewstep.maml(torch.nn.Linear(1, 1), fewstep.mse, 0.1, steps=20, adjoint=adjoint)
    """

    regularization: float = 1.0
    cg_steps: int = 5
    damping: float = 0.0
    exact: ClassVar[bool] = False
    ends_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("Implicit", 0, above=True, regularization=self.regularization)
        check_number("Implicit", 0, damping=self.damping)
        check_whole("Implicit", cg_steps=self.cg_steps)

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
    """The gradient of the loss for the named parameters, and the loss, with the whole graph kept.

    Args:
        loss: ``loss(params, batch)`` gives a scalar.
        params: all parameters by name.
        names: names of the parameters to differentiate with respect to.
        batch: the support set.

    Returns:
        ∇_names L(params; batch), and L.

    Examples:
        >>> loss = lambda params, x: (params["w"] * x).square()
        >>> gradient, value = exact_gradient(loss, {"w": torch.tensor(3.0)}, ["w"], torch.tensor(1.0))
        >>> gradient["w"].item(), value.item(), gradient["w"].requires_grad
        (6.0, 9.0, True)
    """
    return gradient_and_value(loss, params, names, batch)


def constant_gradient(params: Params, batch: Any, adapts: Sequence[str]) -> Gradient:
    """Make a gradient function whose result is a constant for autograd.

    Args:
        params: θ, and the parameters that are not adapted.
        batch: the support set.
        adapts: names of the parameters that the inner loop changes.

    Returns:
        A function with the arguments of [`exact_gradient`][fewstep.adaptation.exact_gradient]. What adaptation does not
        change is detached once and reused in all steps.

    Examples:
        >>> loss, theta, x = lambda params, x: (params["w"] * x).square(), {"w": torch.tensor(3.0)}, torch.tensor(1.0)
        >>> constant_gradient(theta, x, ["w"])(loss, theta, ["w"], x)
        ({'w': tensor(6.)}, tensor(9.))
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

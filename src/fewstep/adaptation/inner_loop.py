"""The inner loop: K updates on the support set (MAML, Algorithm 1, lines 5 and 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fewstep.adaptation.operations import twice_differentiable
from fewstep.adaptation.rules import Params, Rule
from fewstep.models.context import inner_step
from fewstep.pytorch import transforms

Loss = Callable[[Params, Any], Tensor]
"""The loss of one task: a function of all parameters and a batch that gives a scalar."""

Gradient = Callable[[Loss, Params, Sequence[str], Any], tuple[Params, Tensor]]
"""``(loss, params, names, batch)`` → the gradient for the named parameters, and the loss.

It may have a method ``update(rule, params, grads, state, step, loss)``, which is called instead of ``rule.update``.
"""


def inner_loop(
    gradients: Sequence[Gradient], loss: Loss, params: Params, batch: Any, rule: Rule, adapts: Sequence[str]
) -> list[Params]:
    """Compute the path of adaptation, [φ_0, …, φ_K] with φ_{k+1} = U(φ_k, ∇L(φ_k; support)).

    Args:
        gradients: one function per inner step that computes ∇L, such as
            [`exact_gradient`][fewstep.adaptation.exact_gradient]; they differ in what they keep for the backward pass.
        loss: ``loss(params, batch)`` gives a scalar.
        params: φ_0 and the parameters that are not adapted, by name.
        batch: the support set.
        rule: the inner update.
        adapts: names of the parameters that the inner loop changes.

    Returns:
        The parameters before and after each step, each with the parameters that are not adapted.

    Examples:
        >>> import fewstep
        >>> from fewstep.adaptation import exact_gradient
        >>> loss, theta, x = lambda params, x: (params["w"] * x).square(), {"w": torch.tensor(1.0)}, torch.tensor(1.0)
        >>> path = inner_loop([exact_gradient] * 2, loss, theta, x, fewstep.SGD(0.1), ["w"])
        >>> [round(params["w"].item(), 2) for params in path]
        [1.0, 0.8, 0.64]
    """
    return path_and_state(gradients, loss, params, batch, rule, adapts)[0]


def path_and_state(
    gradients: Sequence[Gradient], loss: Loss, params: Params, batch: Any, rule: Rule, adapts: Sequence[str]
) -> tuple[list[Params], Any]:
    """The path of [`inner_loop`][fewstep.adaptation.inner_loop], and the rule's state after the last step."""
    path = [params]
    state = rule.init({name: params[name] for name in adapts})
    for step, gradient in enumerate(gradients):
        grads, value = gradient(at_step(loss, step), params, adapts, batch)
        update = getattr(gradient, "update", None)
        updated = rule.update if update is None else partial(update, rule)
        moved, state = updated({name: params[name] for name in adapts}, grads, state, step, value)
        params = {**params, **moved}
        path.append(params)
    return path, state


def at_step(loss: Loss, step: int) -> Loss:
    """The same loss at an inner step: its layers can read the step, and its operations have second derivatives."""

    def stepped(params: Params, batch: Any) -> Tensor:
        with inner_step(step), twice_differentiable():
            return loss(params, batch)

    stepped.__dict__.update({name: getattr(loss, name) for name in ("state", "holders") if hasattr(loss, name)})
    return stepped


def gradient_and_value(loss: Loss, params: Params, names: Sequence[str], batch: Any) -> tuple[Params, Tensor]:
    """∇_names L(params; batch) and L, differentiable if gradients are recorded."""
    if transforms():
        return torch.func.grad_and_value(lambda adapted: loss({**params, **adapted}, batch))(
            {name: params[name] for name in names}
        )
    # Without a torch.func transform, autograd gives the same result with much less overhead per operation.
    again = torch.is_grad_enabled()
    adapted = {name: params[name] if again else params[name].detach() for name in names}
    adapted = {n: value if value.requires_grad else value.detach().requires_grad_() for n, value in adapted.items()}
    with torch.enable_grad():
        value = loss({**params, **adapted}, batch)
    grads = torch.autograd.grad(value, list(adapted.values()), create_graph=again, materialize_grads=True)
    return dict(zip(names, grads, strict=True)), value if again else value.detach()


def partial_gradient(
    value: Callable[[Sequence[Tensor]], Tensor], tensors: Sequence[Tensor], places: Sequence[int], count: int
) -> Callable[..., tuple[Tensor, ...]]:
    """The gradient of ``value(tensors)`` for the first ``count`` of ``places``, as a function of all of them."""

    def of_places(*replaced: Tensor) -> Tensor:
        merged = list(tensors)
        for place, tensor in zip(places, replaced, strict=True):
            merged[place] = tensor
        return value(merged)

    return torch.func.grad(of_places, argnums=tuple(range(count)))


def plain_products(
    value: Callable[[Sequence[Tensor]], Tensor], tensors: Sequence[Tensor], places: Sequence[int], count: int
) -> Callable[[Sequence[Tensor]], tuple[Tensor, ...]]:
    """The function v ↦ ∂⟨∇value, v⟩, computed with plain autograd instead of ``torch.func``.

    ∇ is the gradient for the first ``count`` of ``places``, and ∂ the derivative for all of ``places``. Plain autograd
    supports activation checkpointing and other hooks on saved tensors, which ``torch.func`` does not.
    """
    inputs = [tensor.detach().requires_grad_(i in places) for i, tensor in enumerate(tensors)]
    with torch.enable_grad():
        first = [inputs[i] for i in places[:count]]
        gradient = torch.autograd.grad(value(inputs), first, create_graph=True, materialize_grads=True)

    def products(vector: Sequence[Tensor]) -> tuple[Tensor, ...]:
        pairs = [(g, v) for g, v in zip(gradient, vector, strict=True) if g.requires_grad]  # the rest are constants
        if not pairs:
            return tuple(torch.zeros_like(inputs[i]) for i in places)
        outputs, cotangents = zip(*pairs, strict=True)
        wanted = [inputs[i] for i in places]
        return torch.autograd.grad(outputs, wanted, cotangents, retain_graph=True, materialize_grads=True)

    return products

"""Implicit differentiation of the minimum of a regularised loss (iMAML, Rajeswaran et al. 2019, Lemma 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.adaptation.inner_loop import Loss, partial_gradient, plain_products
from fewstep.adaptation.recomputation import RecomputationContext, UnchangedCheck
from fewstep.adaptation.rules import Params
from fewstep.pytorch import transforms
from fewstep.tasks.trees import split

Tensors = Sequence[Tensor]


def solve_implicitly(
    loss: Loss, params: Params, solution: Params, batch: Any, regularization: float, cg_steps: int
) -> Params:
    """Make ``solution`` = argmin_φ L(φ, η; batch) + λ/2·‖φ − θ‖² differentiable with respect to θ, η and the batch.

    Args:
        loss: L, without the proximal term.
        params: θ, under the names of ``solution``, and η, the parameters that are not adapted.
        solution: φ.
        batch: the support set.
        regularization: λ.
        cg_steps: the number of conjugate-gradient iterations in the backward pass.
    """
    start = [params[name] for name in solution]
    rest = {name: value for name, value in params.items() if name not in solution}
    leaves, rebuild = split((rest, batch))

    context, unchanged = RecomputationContext(), UnchangedCheck.of(loss)

    def value(tensors: Tensors) -> Tensor:
        unchanged.check()
        rest, batch = rebuild(list(tensors[len(solution) :]))
        with context.restored():
            return loss({**rest, **dict(zip(solution, tensors, strict=False))}, batch)

    solved = _ImplicitSolution.apply(value, regularization, cg_steps, len(start), *start, *solution.values(), *leaves)
    return dict(zip(solution, solved, strict=True))


class _ImplicitSolution(torch.autograd.Function):
    """Forward φ; backward v ↦ x for θ and −(∂²L/∂η∂φ)·x/λ for η, where (I + ∇²L/λ)·x = v."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Any, regularization: float, cg_steps: int, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.clone() for tensor in tensors[count : 2 * count])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.value, ctx.regularization, ctx.cg_steps, ctx.count = inputs[:4]
        ctx.save_for_backward(*inputs[4 + ctx.count :])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        count, tensors = ctx.count, list(ctx.saved_tensors)  # φ, then η and the batch
        wanted = [i for i in range(count, len(tensors)) if ctx.needs_input_grad[4 + count + i]]

        def products(places: Sequence[int]) -> Any:
            """v ↦ ∂⟨∇_φ L, v⟩ for the tensors at ``places``; each product is a backward pass through one ∇_φ L."""
            if not transforms():
                return plain_products(ctx.value, tensors, places, count)
            gradient = partial_gradient(ctx.value, tensors, places, count)
            return torch.func.vjp(gradient, *(tensors[i] for i in places))[1]

        hessian_product = products(range(count))

        def system(vector: Tensors) -> list[Tensor]:
            curvature = hessian_product(tuple(vector))
            return [v + hv / ctx.regularization for v, hv in zip(vector, curvature, strict=True)]

        x = conjugate_gradients(system, cotangents, ctx.cg_steps)
        rest: list[Tensor | None] = [None] * (len(tensors) - count)
        if wanted:
            derivatives = products([*range(count), *wanted])(tuple(x))
            for i, mixed in zip(wanted, derivatives[count:], strict=True):
                rest[i - count] = -mixed / ctx.regularization
        return None, None, None, None, *x, *([None] * count), *rest


def conjugate_gradients(matrix: Callable[[Tensors], Tensors], target: Tensors, iterations: int) -> list[Tensor]:
    """Solve ``matrix(x) = target`` for a symmetric positive definite matrix (Hestenes and Stiefel 1952).

    Starts from x = 0. The number of iterations is fixed, so that it runs under ``torch.vmap``; once the residual is 0,
    x does not change.
    """
    x = [torch.zeros_like(t) for t in target]
    residual = list(target)
    direction = list(target)
    squared = _dot(residual, residual)
    for _ in range(iterations):
        image = matrix(direction)
        step = _ratio(squared, _dot(direction, image))
        x = [a + step * d for a, d in zip(x, direction, strict=True)]
        residual = [r - step * i for r, i in zip(residual, image, strict=True)]
        squared, previous = _dot(residual, residual), squared
        ratio = _ratio(squared, previous)
        direction = [r + ratio * d for r, d in zip(residual, direction, strict=True)]
    return x


def _dot(a: Tensors, b: Tensors) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    safe = torch.where(denominator == 0, torch.ones_like(denominator), denominator)
    return torch.where(denominator == 0, torch.zeros_like(numerator), numerator / safe)

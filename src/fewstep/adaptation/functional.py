"""Adaptation as a function of dictionaries of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fewstep.adaptation.adjoints import Adjoint, Unrolled
from fewstep.adaptation.inner_loop import Loss
from fewstep.adaptation.rules import Params, Rule


def adapt(
    loss: Loss,
    params: Params,
    batch: Any,
    rule: Rule,
    steps: int,
    adjoint: Adjoint = Unrolled(),  # noqa: B008 - immutable
    adapts: Sequence[str] | None = None,
) -> Params:
    """φ = U(θ, support): a few steps of an update rule from shared parameters, differentiable in ``params``.

    The functional core of the library, for models that are no ``nn.Module``. Composes with autograd, ``torch.func``
    and ``torch.vmap``.

    Args:
        loss: ``loss(params, batch)`` gives a scalar.
        params: θ by name. Those not adapted are passed on to the loss unchanged.
        batch: the support set, any pytree of tensors.
        rule: one inner update, such as :class:`fewstep.GradientDescent`.
        steps: number of updates, K.
        adjoint: how dφ/dθ is obtained.
        adapts: names of the parameters to move; all if not given.

    Returns:
        φ_K under the names of ``params``.

    >>> import torch, fewstep
    >>> theta = {"w": torch.tensor(1.0, requires_grad=True)}
    >>> phi = adapt(lambda p, x: (p["w"] * x).square(), theta, torch.tensor(1.0), fewstep.GradientDescent(0.1), steps=2)
    >>> phi["w"].backward()
    >>> round(phi["w"].item(), 2), round(theta["w"].grad.item(), 2)  # (1 − 2·0.1)² for both
    (0.64, 0.64)
    """
    names = list(params) if adapts is None else list(adapts)
    unknown = [name for name in names if name not in params]
    if unknown:
        raise KeyError(f"adapt: adapts names {unknown}, which are not in params; it has {list(params)}.")
    return adjoint(loss, params, batch, rule, steps, names)[-1]

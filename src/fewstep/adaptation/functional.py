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
    """Adapt parameters to a support set: φ = U(θ, support), differentiable with respect to ``params``.

    This is the functional core of the library, for models that are not an ``nn.Module``. It composes with autograd,
    ``torch.func`` and ``torch.vmap``.

    Args:
        loss: ``loss(params, batch)`` gives a scalar.
        params: θ by name. Parameters that are not adapted are passed to the loss unchanged.
        batch: the support set, any pytree of tensors.
        rule: the inner update, such as [`GradientDescent`][fewstep.GradientDescent].
        steps: the number of inner steps, K.
        adjoint: how dφ/dθ is computed.
        adapts: names of the parameters to change; ``None`` for all.

    Returns:
        φ_K, with the names of ``params``.

    Raises:
        KeyError: ``adapts`` holds a name that is not in ``params``.

    Examples:
        >>> import torch, fewstep
        >>> theta = {"w": torch.tensor(1.0, requires_grad=True)}
        >>> rule = fewstep.GradientDescent(0.1)
        >>> phi = adapt(lambda p, x: (p["w"] * x).square(), theta, torch.tensor(1.0), rule, steps=2)
        >>> phi["w"].backward()
        >>> round(phi["w"].item(), 2), round(theta["w"].grad.item(), 2)  # both are (1 − 2·0.1)²
        (0.64, 0.64)
    """
    names = list(params) if adapts is None else list(adapts)
    unknown = [name for name in names if name not in params]
    if unknown:
        raise KeyError(f"adapt: adapts holds {unknown}, which params does not have; it has {list(params)}.")
    return adjoint(loss, params, batch, rule, steps, names)[-1]

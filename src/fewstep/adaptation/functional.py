"""Adaptation as a function of dictionaries of tensors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from fewstep.adaptation.adjoints import Adjoint, Unrolled
from fewstep.adaptation.inner_loop import Loss
from fewstep.adaptation.rules import Params, Rule
from fewstep.adaptation.rules.rule import is_rule
from fewstep.arguments import check_function, check_whole, named_tensors


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
    check_function("adapt", "a function of (params, batch)", loss=loss)
    if not is_rule(rule):
        raise TypeError(f"adapt: rule must be a rule, such as fewstep.SGD(0.1); got {type(rule).__name__}.")
    if not isinstance(adjoint, Adjoint):
        raise TypeError(f"adapt: adjoint must be an adjoint, such as fewstep.Unrolled(); got {adjoint!r}.")
    check_whole("adapt", 0, steps=steps)
    named_tensors("adapt", params=params)
    if adapts is not None and (not isinstance(adapts, Collection) or not adapts):
        raise TypeError(f"adapt: adapts must be a list of one or more names, or None for all; got {adapts!r}.")
    names = list(params) if adapts is None else [adapts] if isinstance(adapts, str) else list(adapts)
    unknown = [name for name in names if name not in params]
    if unknown:
        raise KeyError(f"adapt: adapts holds {unknown}, which params does not have; it has {list(params)}.")
    return adjoint(loss, params, batch, rule, steps, names)[-1]

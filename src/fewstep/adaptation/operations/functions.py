"""Attention, weight norm, distances and losses, written with operations that have all second derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.pytorch import in_forward_mode, under_vmap

MANY_POINTS = 25
"""With more points than this, Euclidean distances are computed by a matrix product, as PyTorch does."""


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Matrix products and a softmax: the fused kernels have neither second nor forward-mode derivatives."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -math.inf)
    plain: Any = torch._scaled_dot_product_attention_math
    return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)[0]


def _with_globals(function: Callable[..., Any], **names: Any) -> Callable[..., Any]:
    """A copy of a function with other values for some global names."""
    assert isinstance(function, FunctionType)
    changed = FunctionType(
        function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__
    )
    changed.__kwdefaults__ = function.__kwdefaults__
    return changed


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """v·g/‖v‖; the fused kernel's second derivative is wrong."""
    others = list(range(v.ndim)) if dim == -1 else [axis for axis in range(v.ndim) if axis != dim % v.ndim]
    return v * (g / torch.linalg.vector_norm(v, dim=others, keepdim=dim != -1))


def _weight_norm_interface(v: Tensor, g: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    others = [axis for axis in range(v.ndim) if axis != dim % v.ndim]
    norm = torch.linalg.vector_norm(v, dim=others, keepdim=True)
    return v * (g / norm), norm


def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    large = max(x1.shape[-2], x2.shape[-2]) > MANY_POINTS
    by_product = compute_mode == "use_mm_for_euclid_dist" or (large and compute_mode.endswith("if_necessary"))
    if p == 2 and by_product:
        square1, square2 = x1.square().sum(-1), x2.square().sum(-1)
        squares = square1.unsqueeze(-1) + square2.unsqueeze(-2) - 2 * x1 @ x2.mT
        apart = squares > 0
        return torch.where(apart, squares, 1.0).sqrt() * apart
    return _norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p)


def _pdist(input: Tensor, p: float = 2.0) -> Tensor:
    first, second = torch.triu_indices(len(input), len(input), 1, device=input.device)
    return _norm(input[first] - input[second], p)


def _norm(difference: Tensor, p: float) -> Tensor:
    """A norm whose derivatives are 0 where the difference is 0, as for PyTorch's distances."""
    apart = (difference != 0).any(-1, keepdim=True)
    return torch.linalg.vector_norm(torch.where(apart, difference, 1.0), p, dim=-1) * apart.squeeze(-1)


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    result = functional.relu6(input + 3) / 6
    return input.copy_(result) if inplace else result


def _reduced(values: Tensor, reduction: str) -> Tensor:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction must be "mean", "sum" or "none"; got {reduction!r}.')
    return values.mean() if reduction == "mean" else values.sum() if reduction == "sum" else values


def _of_old(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction, from PyTorch's two deprecated arguments."""
    if size_average is None and reduce is None:
        return reduction
    return "none" if reduce is False else "sum" if size_average is False else "mean"


def _huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    if weight is None:
        return delta * functional.smooth_l1_loss(input, target, reduction=reduction, beta=delta)
    weighted: Any = functional.huber_loss
    return weighted(input, target, reduction, delta, weight)


def _mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """In forward mode, the mean is a separate operation: PyTorch's fails there if the target is a constant."""
    reduction = _of_old(size_average, reduce, reduction)
    if weight is not None:
        weighted: Any = functional.mse_loss
        return weighted(input, target, reduction=reduction, weight=weight)
    if not in_forward_mode() or reduction != "mean":
        return functional.mse_loss(input, target, reduction=reduction)
    return functional.mse_loss(input, target, reduction="none").mean()


def _soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    return _reduced(functional.softplus(-target * input), _of_old(size_average, reduce, reduction))


def _multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    place = target.unsqueeze(-1)
    violations = (margin - input.gather(-1, place) + input).clamp(min=0) ** p
    if weight is not None:
        violations = violations * weight[target].unsqueeze(-1)
    others = torch.arange(input.shape[-1], device=input.device) != place
    return _reduced((violations * others).mean(-1), _of_old(size_average, reduce, reduction))


def _gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Without the check that variances are positive, which vmap does not support."""
    if not under_vmap():
        return functional.gaussian_nll_loss(input, target, var, full, eps, reduction)
    return _unchecked_gaussian_nll_loss(input, target, var, full, eps, reduction)


def _one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """Without the check of the largest class, which vmap does not support."""
    if num_classes < 1 or not under_vmap():
        return functional.one_hot(input, num_classes)
    return (input.unsqueeze(-1) == torch.arange(num_classes, device=input.device)).long()


def _cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    """The forward-mode derivative of the gradient of PyTorch's own is wrong."""
    identity = torch.eye(input.shape[-1], dtype=input.dtype, device=input.device).expand_as(input)
    return torch.cholesky_solve(identity, input, upper)


def _select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """Under vmap, the gradient of PyTorch's own has no second derivative with respect to ``src``."""
    place = torch.tensor([index % input.shape[dim]], device=input.device)
    return input.index_copy(dim, place, src.unsqueeze(dim))


class _AsNegligible:
    """``torch``, except that ``any`` is always false."""

    def __getattr__(self, name: str) -> Any:
        return (lambda condition: False) if name == "any" else getattr(torch, name)


_unchecked_gaussian_nll_loss = _with_globals(
    functional.gaussian_nll_loss, torch=_AsNegligible(), has_torch_function_variadic=lambda *tensors: False
)

FUNCTIONS: dict[Any, Callable[..., Any]] = {
    functional.scaled_dot_product_attention: _attention,
    functional.multi_head_attention_forward: _with_globals(
        functional.multi_head_attention_forward,
        scaled_dot_product_attention=_attention,
        has_torch_function=lambda tensors: False,
    ),
    torch._weight_norm: _weight_norm,
    torch._weight_norm_interface: _weight_norm_interface,
    torch.cdist: _cdist,
    torch.pdist: _pdist,
    functional.hardsigmoid: _hardsigmoid,
    functional.mse_loss: _mse_loss,
    functional.huber_loss: _huber_loss,
    functional.soft_margin_loss: _soft_margin_loss,
    functional.multi_margin_loss: _multi_margin_loss,
    functional.gaussian_nll_loss: _gaussian_nll_loss,
    functional.one_hot: _one_hot,
    torch.cholesky_inverse: _cholesky_inverse,
    Tensor.cholesky_inverse: _cholesky_inverse,
    torch.select_scatter: _select_scatter,
    Tensor.select_scatter: _select_scatter,
}
"""The replacement for each of PyTorch's functions."""

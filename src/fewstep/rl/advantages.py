"""Returns and advantages. All tensors are ``[..., episodes, time]``."""

from __future__ import annotations

import torch
from torch import Tensor


def discounted_returns(rewards: Tensor, mask: Tensor, discount: float) -> Tensor:
    """Compute the discounted returns R_t = Σ_{k≥0} γ^k·r_{t+k}, up to the end of the episode.

    Args:
        rewards: r, ``[..., episodes, time]``.
        mask: 1 during the episode, 0 after its end, ``[..., episodes, time]``.
        discount: the discount γ.

    Returns:
        The returns, ``[..., episodes, time]``.

    Examples:
        >>> discounted_returns(torch.tensor([[1.0, 1.0, 9.0]]), torch.tensor([[1.0, 1.0, 0.0]]), discount=0.5)
        tensor([[1.5000, 1.0000, 0.0000]])
    """
    return _discounted_sums(rewards * mask, discount)


def generalized_advantages(rewards: Tensor, values: Tensor, mask: Tensor, discount: float, gae_lambda: float) -> Tensor:
    """Compute generalised advantages (Schulman et al. 2016, equation 16).

    Â_t = Σ_{k≥0} (γλ)^k·δ_{t+k} with δ_t = r_t + γ·V_{t+1} − V_t. V is 0 after the end of an episode, including
    truncation at the horizon. With λ = 1, Â_t = R_t − V_t.

    Args:
        rewards: r, ``[..., episodes, time]``.
        values: V of each observation, ``[..., episodes, time]``.
        mask: 1 during the episode, 0 after its end, ``[..., episodes, time]``.
        discount: the discount γ.
        gae_lambda: the decay λ.

    Returns:
        The advantages, ``[..., episodes, time]``.

    Examples:
        >>> ones = torch.ones(1, 3)
        >>> generalized_advantages(ones, 0.5 * ones, ones, discount=1.0, gae_lambda=1.0)
        tensor([[2.5000, 1.5000, 0.5000]])
    """
    values = values * mask
    following = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], -1)
    return _discounted_sums((rewards + discount * following - values) * mask, discount * gae_lambda)


def normalized(advantages: Tensor, mask: Tensor) -> Tensor:
    """Normalise advantages to mean 0 and standard deviation 1 over the unmasked steps of each task; 0 where masked.

    Args:
        advantages: ``[..., episodes, time]``.
        mask: 1 during the episode, 0 after its end, ``[..., episodes, time]``.

    Returns:
        The normalised advantages, ``[..., episodes, time]``.

    Examples:
        >>> normalized(torch.tensor([[1.0, 3.0]]), torch.ones(1, 2))
        tensor([[-1.,  1.]])
    """
    steps = mask.sum((-2, -1), keepdim=True)
    centred = (advantages - (advantages * mask).sum((-2, -1), keepdim=True) / steps) * mask
    return centred / ((centred.square().sum((-2, -1), keepdim=True) / steps).sqrt() + 1e-8)


def _discounted_sums(values: Tensor, discount: float) -> Tensor:
    sums = torch.empty_like(values)
    following = torch.zeros_like(values[..., 0])
    for t in reversed(range(values.shape[-1])):
        following = values[..., t] + discount * following
        sums[..., t] = following
    return sums

"""Returns and advantages: what an action was worth. All tensors are ``[..., episodes, time]``."""

from __future__ import annotations

import torch
from torch import Tensor


def discounted_returns(rewards: Tensor, mask: Tensor, discount: float) -> Tensor:
    """R_t = Σ_{k≥0} γ^k·r_{t+k}, up to the end of the episode."""
    return _discounted_sums(rewards * mask, discount)


def generalized_advantages(rewards: Tensor, values: Tensor, mask: Tensor, discount: float, gae_lambda: float) -> Tensor:
    """Â_t = Σ_{k≥0} (γλ)^k·δ_{t+k} with δ_t = r_t + γ·V_{t+1} − V_t (Schulman et al. 2016, equation 16).

    After the end of an episode, by the horizon too, V is 0: the task is to do well until then. With λ = 1 this is
    R_t − V_t.

    Args:
        rewards: r.
        values: V of each observation.
        mask: 1 while the episode goes on.
        discount: γ.
        gae_lambda: λ.
    """
    values = values * mask
    following = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], -1)
    return _discounted_sums((rewards + discount * following - values) * mask, discount * gae_lambda)


def normalized(advantages: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the steps of each task that are not masked; 0 where masked."""
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

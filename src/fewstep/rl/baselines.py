"""Baselines of the policy gradient: values of observations, fitted to the returns of each task."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_baseline(observations: Tensor, returns: Tensor, mask: Tensor, ridge: float = 1e-5) -> Tensor:
    """Fit values to returns by least squares on the features [o, o², t, t², t³, 1] (Duan et al. 2016, section 5).

    Observations o are clipped to ±10, and t is the time in hundreds of steps. Each task is fitted separately, to the
    episodes whose values are predicted.

    Args:
        observations: ``[tasks, episodes, time, numbers]``.
        returns: discounted returns, ``[tasks, episodes, time]``.
        mask: 1 during the episode, 0 after its end, ``[tasks, episodes, time]``.
        ridge: the number added to the diagonal of the normal equations.

    Returns:
        Values, ``[tasks, episodes, time]``.

    Raises:
        ValueError: observations are not vectors.

    Examples:
        >>> returns = torch.rand(2, 5, 10)
        >>> linear_baseline(torch.rand(2, 5, 10, 3), returns, torch.ones_like(returns)).shape
        torch.Size([2, 5, 10])
    """
    if observations.ndim != returns.ndim + 1:
        raise ValueError(
            "linear_baseline expects observations [tasks, episodes, time, numbers]; got shape "
            f"{list(observations.shape)}. For images use fewstep.rl.time_baseline, or flatten them."
        )
    o = observations.double().clamp(-10, 10)
    t = _time(returns)
    return _least_squares(torch.cat([o, o.square(), t, t.square(), t**3, torch.ones_like(t)], -1), returns, mask, ridge)


def time_baseline(observations: Tensor, returns: Tensor, mask: Tensor, ridge: float = 1e-5) -> Tensor:
    """Fit values to returns by least squares on the features [t, t², t³, 1], for image observations.

    These are the features of [`linear_baseline`][fewstep.rl.linear_baseline] without those of the observation. With the
    pixels of an image there would be more features than steps. The values would then fit any returns, and the
    advantages would vanish.

    Args:
        observations: ``[tasks, episodes, time, ...]``, which are not used.
        returns: discounted returns, ``[tasks, episodes, time]``.
        mask: 1 during the episode, 0 after its end, ``[tasks, episodes, time]``.
        ridge: the number added to the diagonal of the normal equations.

    Returns:
        Values, ``[tasks, episodes, time]``.

    Examples:
        >>> returns = torch.rand(2, 5, 10)
        >>> time_baseline(torch.rand(2, 5, 10, 8, 8, 3), returns, torch.ones_like(returns)).shape
        torch.Size([2, 5, 10])
    """
    t = _time(returns)
    return _least_squares(torch.cat([t, t.square(), t**3, torch.ones_like(t)], -1), returns, mask, ridge)


def _time(returns: Tensor) -> Tensor:
    """Time in hundreds of steps, ``[tasks, episodes, time, 1]``."""
    t = torch.arange(returns.shape[-1], dtype=torch.float64, device=returns.device).div(100)
    return t[:, None].expand(*returns.shape, 1)


def _least_squares(features: Tensor, returns: Tensor, mask: Tensor, ridge: float) -> Tensor:
    fitted = (features * mask[..., None]).flatten(1, 2)
    square = fitted.mT @ fitted + ridge * torch.eye(features.shape[-1], dtype=features.dtype, device=features.device)
    right = fitted.mT @ (returns * mask).double().flatten(1, 2)[..., None]
    weights = torch.linalg.solve(square, right)
    return (features.flatten(1, 2) @ weights).view_as(returns).to(returns)

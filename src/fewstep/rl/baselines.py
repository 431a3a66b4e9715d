"""The baseline of the policy gradient: a value of each observation, fitted to the returns of each task anew."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_baseline(observations: Tensor, returns: Tensor, mask: Tensor, ridge: float = 1e-5) -> Tensor:
    """Values by least squares on the features [o, o², t, t², t³, 1] (Duan et al. 2016).

    With o clipped to ±10 and t in hundreds of steps. Fitted to and predicted on the same episodes, for each task by
    itself, all tasks at once.

    Args:
        observations: ``[tasks, episodes, time, numbers]``.
        returns: ``[tasks, episodes, time]``.
        mask: 1 while the episode goes on, ``[tasks, episodes, time]``.
        ridge: added to the diagonal of the normal equations.

    Returns:
        Values, ``[tasks, episodes, time]``.
    """
    o = observations.double().clamp(-10, 10)
    t = torch.arange(o.shape[-2], dtype=o.dtype, device=o.device).div(100)[:, None].expand(*o.shape[:-1], 1)
    features = torch.cat([o, o.square(), t, t.square(), t**3, torch.ones_like(t)], -1)
    fitted = (features * mask[..., None]).flatten(1, 2)
    square = fitted.mT @ fitted + ridge * torch.eye(features.shape[-1], dtype=o.dtype, device=o.device)
    right = fitted.mT @ (returns * mask).double().flatten(1, 2)[..., None]
    weights = torch.linalg.solve(square, right)
    return (features.flatten(1, 2) @ weights).view_as(returns).to(returns)

"""Losses of a policy on trajectories, ``(policy, trajectories) -> scalar``, to be minimised.

They differ in how they account for the trajectories' having been sampled from a policy that itself is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fewstep.adaptation.inner_loop import Loss
from fewstep.adaptation.rules import Params
from fewstep.rl.trajectories import Trajectories
from fewstep.tasks import Task

Policy = Callable[[Tensor], Any]
"""A function from observations to a [`Distribution`][fewstep.rl.Distribution] of actions."""


def policy_gradient(policy: Policy, trajectories: Trajectories) -> Tensor:
    """−mean(log π(a|s)·Â), whose gradient is the policy gradient (Williams 1992; MAML, equation 4).

    Its second derivative is not that of the expected return: how the sampling of the trajectories depends on the
    policy is not in it. See [`dice`][fewstep.rl.dice] and [`surrogate`][fewstep.rl.surrogate].
    """
    log_probs = trajectories.distribution(policy).log_prob(trajectories.actions)
    return -trajectories.mean(log_probs * trajectories.advantages)


def surrogate(policy: Policy, trajectories: Trajectories) -> Tensor:
    """−mean(π(a|s)/π_sampling(a|s)·Â), the importance-weighted return (TRPO, Schulman et al. 2015, equation 14).

    As the inner loss it is ProMP's low-variance-curvature estimator (Rothfuss et al. 2019).
    """
    return -trajectories.mean(_ratio(policy, trajectories) * trajectories.advantages)


@dataclass(frozen=True)
class clipped_surrogate:  # noqa: N801 - reads as a function where it is used, beside surrogate
    """−mean(min(r·Â, clip(r, 1 − ε, 1 + ε)·Â)) with the importance ratio r (PPO, Schulman et al. 2017, equation 7).

    Args:
        clip: ε; 0.3 in ProMP.
    """

    clip: float = 0.2

    def __call__(self, policy: Policy, trajectories: Trajectories) -> Tensor:
        ratio, advantages = _ratio(policy, trajectories), trajectories.advantages
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        return -trajectories.mean(torch.minimum(ratio * advantages, clipped * advantages))


def dice(policy: Policy, trajectories: Trajectories) -> Tensor:
    """Right in derivatives of every order at the sampling policy: DiCE with a baseline (Foerster et al. 2018).

    −mean((□_t − □_{t−1})·Â_t) with □_t = exp(c_t − ⊥c_t), c_t = Σ_{k≤t} log π(a_k|s_k) and ⊥ a constant: the form of
    Farquhar et al. 2019, Loaded DiCE, where an advantage counts for how all actions up to its own were sampled. The
    first derivative is that of [`policy_gradient`][fewstep.rl.policy_gradient]; the value is 0.
    """
    log_probs = trajectories.distribution(policy).log_prob(trajectories.actions) * trajectories.mask
    up_to = log_probs.cumsum(-1)
    before = up_to - log_probs
    weight = (up_to - up_to.detach()).exp() - (before - before.detach()).exp()
    return -trajectories.mean(weight * trajectories.advantages)


def e_maml(loss: Loss, path: list[Params], task: Task) -> Tensor:
    """A meta-objective: the query loss, and credit for the trajectories that led there (E-MAML, Stadie et al. 2018).

    The support trajectories were sampled by the policies φ_0 … φ_{K−1}, and so the expected return after adaptation
    also depends on θ through what adaptation got to see: the term E[∇ log π(support)·return(query)]. The return is
    taken as the task's ``credit``, and the sum over the steps of log π as their mean, as everywhere in these losses. To
    be used with [`surrogate`][fewstep.rl.surrogate] or [`clipped_surrogate`][fewstep.rl.clipped_surrogate].
    """
    value: Any = loss(path[-1], task.query)
    for step, params in enumerate(path[:-1]):
        explored: Trajectories = task.support[step]
        credit = task.query.credit.expand_as(explored.advantages)
        value = value + loss(params, replace(explored, advantages=credit))
    return value


def mean_return(policy: Policy, trajectories: Trajectories) -> Tensor:
    """A metric: the undiscounted return, averaged over the episodes."""
    return trajectories.returns.mean(-1)


def _ratio(policy: Policy, trajectories: Trajectories) -> Tensor:
    log_probs = trajectories.distribution(policy).log_prob(trajectories.actions)
    return ((log_probs - trajectories.log_probs) * trajectories.mask).exp()

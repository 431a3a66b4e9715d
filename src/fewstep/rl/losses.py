"""Losses of a policy on trajectories: functions ``(policy, trajectories) -> scalar``, which are minimised.

They differ in how they treat the dependence of the sampled trajectories on the policy that is differentiated.
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
    """The policy-gradient loss −mean(log π(a|s)·Â) (Williams 1992; MAML, equation 4).

    Its second derivative is not that of the expected return, since the dependence of the sampled trajectories on the
    policy is not differentiated. See [`dice`][fewstep.rl.dice] and [`surrogate`][fewstep.rl.surrogate].
    """
    log_probs = trajectories.distribution(policy).log_prob(trajectories.actions)
    return -trajectories.mean(log_probs * trajectories.advantages)


def surrogate(policy: Policy, trajectories: Trajectories) -> Tensor:
    """The importance-weighted loss −mean(π(a|s)/π_sampling(a|s)·Â) (TRPO, Schulman et al. 2015, equation 14).

    As an inner loss, this is ProMP's low-variance-curvature estimator (Rothfuss et al. 2019).
    """
    return -trajectories.mean(_ratio(policy, trajectories) * trajectories.advantages)


@dataclass(frozen=True)
class clipped_surrogate:  # noqa: N801 - reads as a function where it is used, beside surrogate
    """The clipped loss −mean(min(r·Â, clip(r, 1 − ε, 1 + ε)·Â)) (PPO, Schulman et al. 2017, equation 7).

    r is the importance ratio π(a|s)/π_sampling(a|s).

    Args:
        clip: ε; 0.3 in ProMP.

    Examples:
        >>> clipped_surrogate(0.3)
        clipped_surrogate(clip=0.3)
    """

    clip: float = 0.2

    def __call__(self, policy: Policy, trajectories: Trajectories) -> Tensor:
        ratio, advantages = _ratio(policy, trajectories), trajectories.advantages
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        return -trajectories.mean(torch.minimum(ratio * advantages, clipped * advantages))


def dice(policy: Policy, trajectories: Trajectories) -> Tensor:
    """DiCE with a baseline, whose derivatives of every order are unbiased (Foerster et al. 2018; Farquhar et al. 2019).

    The loss is −mean((□_t − □_{t−1})·Â_t) with □_t = exp(c_t − ⊥c_t) and c_t = Σ_{k≤t} log π(a_k|s_k), where ⊥ stops
    the gradient (Loaded DiCE). At the sampling policy, the first derivative is that of
    [`policy_gradient`][fewstep.rl.policy_gradient], and the value is 0.
    """
    log_probs = trajectories.distribution(policy).log_prob(trajectories.actions) * trajectories.mask
    up_to = log_probs.cumsum(-1)
    before = up_to - log_probs
    weight = (up_to - up_to.detach()).exp() - (before - before.detach()).exp()
    return -trajectories.mean(weight * trajectories.advantages)


def e_maml(loss: Loss, path: list[Params], task: Task) -> Tensor:
    """A meta-objective that adds a term for the sampling of the support trajectories (E-MAML, Stadie et al. 2018).

    The support trajectories are sampled by the policies φ_0, ..., φ_{K−1}, so that the expected return after adaptation
    also depends on θ through them, by the term E[∇ log π(support)·return(query)]. The return is the task's ``credit``,
    and log π is averaged over steps, as in the other losses. Use it with [`surrogate`][fewstep.rl.surrogate] or
    [`clipped_surrogate`][fewstep.rl.clipped_surrogate].
    """
    value: Any = loss(path[-1], task.query)
    for step, params in enumerate(path[:-1]):
        explored: Trajectories = task.support[step]
        credit = task.query.credit.expand_as(explored.advantages)
        value = value + loss(params, replace(explored, advantages=credit))
    return value


def mean_return(policy: Policy, trajectories: Trajectories) -> Tensor:
    """A metric: the undiscounted return, averaged over episodes."""
    return trajectories.returns.mean(-1)


def _ratio(policy: Policy, trajectories: Trajectories) -> Tensor:
    log_probs = trajectories.distribution(policy).log_prob(trajectories.actions)
    return ((log_probs - trajectories.log_probs) * trajectories.mask).exp()

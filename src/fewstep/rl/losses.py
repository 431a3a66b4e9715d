"""Losses of a policy on trajectories: functions ``(policy, trajectories) -> scalar``, which are minimised.

They differ in how they treat the dependence of the sampled trajectories on the policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fewstep.adaptation.inner_loop import Loss
from fewstep.adaptation.rules import Params
from fewstep.arguments import check_number
from fewstep.rl.trajectories import Trajectories
from fewstep.tasks import Task

Policy = Callable[[Tensor], Any]
"""A function from observations to a [`Distribution`][fewstep.rl.Distribution] of actions."""


def policy_gradient(policy: Policy, trajectories: Trajectories) -> Tensor:
    """The policy-gradient loss −mean(log π(a|s)·Â) (Williams 1992; MAML, equation 4).

    Its second derivative is not that of the expected return, since the dependence of the sampled trajectories on the
    policy is not differentiated. See [`dice`][fewstep.rl.dice] and [`surrogate`][fewstep.rl.surrogate].

    Args:
        policy: a function from observations to a distribution of actions, such as a module.
        trajectories: episodes of one task, ``[episodes, time, ...]``.

    Returns:
        A scalar.

    Examples:
        >>> from fewstep.rl import EnvironmentTasks, GaussianPolicy, Rollouts, environments
        >>> rollouts = Rollouts(environments.PointNavigation(num_envs=5), episodes=5, horizon=8)
        >>> policy, tasks = GaussianPolicy(2, 2), EnvironmentTasks(rollouts.environment).sample(1).support
        >>> params = {name: value[None] for name, value in policy.named_parameters()}
        >>> trajectories = rollouts(policy, params, tasks)[0]
        >>> policy_gradient(policy, trajectories).shape
        torch.Size([])
    """
    log_probs = trajectories.distribution(policy).log_prob(trajectories.actions)
    return -trajectories.mean(log_probs * trajectories.advantages)


def surrogate(policy: Policy, trajectories: Trajectories) -> Tensor:
    """The importance-weighted loss −mean(π(a|s)/π_sampling(a|s)·Â) (TRPO, Schulman et al. 2015, equation 14).

    As an inner loss, this is ProMP's low-variance-curvature estimator (Rothfuss et al. 2019).

    Args:
        policy: a function from observations to a distribution of actions, such as a module.
        trajectories: episodes of one task, ``[episodes, time, ...]``.

    Returns:
        A scalar.

    Examples:
        >>> from fewstep.rl import EnvironmentTasks, GaussianPolicy, Rollouts, environments
        >>> rollouts = Rollouts(environments.PointNavigation(num_envs=5), episodes=5, horizon=8)
        >>> policy, tasks = GaussianPolicy(2, 2), EnvironmentTasks(rollouts.environment).sample(1).support
        >>> params = {name: value[None] for name, value in policy.named_parameters()}
        >>> trajectories = rollouts(policy, params, tasks)[0]
        >>> loss = surrogate(policy, trajectories)  # at the sampling policy: minus the mean advantage, which is 0
        >>> torch.testing.assert_close(loss.detach(), torch.tensor(0.0), atol=1e-5, rtol=0)
    """
    return -trajectories.mean(_ratio(policy, trajectories) * trajectories.advantages)


@dataclass(frozen=True)
class clipped_surrogate:  # noqa: N801 - reads as a function where it is used, beside surrogate
    """The clipped loss −mean(min(r·Â, clip(r, 1 − ε, 1 + ε)·Â)) (PPO, Schulman et al. 2017, equation 7).

    r is the importance ratio π(a|s)/π_sampling(a|s). The object is called like
    [`surrogate`][fewstep.rl.surrogate].

    Args:
        clip: the clip range ε; 0.3 in ProMP.

    Examples:
        >>> clipped_surrogate(0.3)
        clipped_surrogate(clip=0.3)
    """

    clip: float = 0.2

    def __post_init__(self) -> None:
        check_number("clipped_surrogate", 0, above=True, clip=self.clip)

    def __call__(self, policy: Policy, trajectories: Trajectories) -> Tensor:
        ratio, advantages = _ratio(policy, trajectories), trajectories.advantages
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        return -trajectories.mean(torch.minimum(ratio * advantages, clipped * advantages))


def dice(policy: Policy, trajectories: Trajectories) -> Tensor:
    """DiCE with a baseline, whose derivatives of every order are unbiased (Foerster et al. 2018; Farquhar et al. 2019).

    The loss is −mean((□_t − □_{t−1})·Â_t) with □_t = exp(c_t − ⊥c_t) and c_t = Σ_{k≤t} log π(a_k|s_k), where ⊥ stops
    the gradient (Loaded DiCE). At the sampling policy, the first derivative is that of
    [`policy_gradient`][fewstep.rl.policy_gradient], and the value is 0.

    Args:
        policy: a function from observations to a distribution of actions, such as a module.
        trajectories: episodes of one task, ``[episodes, time, ...]``.

    Returns:
        A scalar.

    Examples:
        >>> from fewstep.rl import EnvironmentTasks, GaussianPolicy, Rollouts, environments
        >>> rollouts = Rollouts(environments.PointNavigation(num_envs=5), episodes=5, horizon=8)
        >>> policy, tasks = GaussianPolicy(2, 2), EnvironmentTasks(rollouts.environment).sample(1).support
        >>> params = {name: value[None] for name, value in policy.named_parameters()}
        >>> trajectories = rollouts(policy, params, tasks)[0]
        >>> losses = [loss(policy, trajectories) for loss in (dice, policy_gradient)]
        >>> gradients = [torch.autograd.grad(loss, list(policy.parameters())) for loss in losses]
        >>> torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)
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

    Args:
        loss: the outer loss as a function of parameters and trajectories.
        path: the parameters φ_0, ..., φ_K of one task.
        task: the result of [`collect`][fewstep.rl.MetaPolicy.collect] for one task.

    Returns:
        A scalar.

    Examples:
        >>> import fewstep
        >>> from fewstep import rl
        >>> rollouts = rl.Rollouts(rl.environments.PointNavigation(num_envs=10), episodes=5, horizon=5)
        >>> options = {"rule": fewstep.GradientDescent(0.1), "objective": e_maml}
        >>> learner = rl.MetaPolicy(rl.GaussianPolicy(2, 2, [8]), rollouts, **options)
        >>> learner.meta_loss(rl.EnvironmentTasks(rollouts.environment).sample(2)).backward()
    """
    value: Any = loss(path[-1], task.query)
    for step, params in enumerate(path[:-1]):
        explored: Trajectories = task.support[step]
        credit = task.query.credit.expand_as(explored.advantages)
        value = value + loss(params, replace(explored, advantages=credit))
    return value


def mean_return(policy: Policy, trajectories: Trajectories) -> Tensor:
    """A metric: the undiscounted return, averaged over episodes.

    Args:
        policy: not used.
        trajectories: episodes of one task, ``[episodes, time, ...]``.

    Returns:
        The mean return in the units of the reward, a scalar; ``[tasks]`` for trajectories of several tasks.

    Examples:
        >>> from fewstep.rl import EnvironmentTasks, GaussianPolicy, Rollouts, environments
        >>> rollouts = Rollouts(environments.PointNavigation(num_envs=5), episodes=5, horizon=8)
        >>> policy, tasks = GaussianPolicy(2, 2), EnvironmentTasks(rollouts.environment).sample(1).support
        >>> params = {name: value[None] for name, value in policy.named_parameters()}
        >>> trajectories = rollouts(policy, params, tasks)[0]
        >>> torch.equal(mean_return(policy, trajectories), trajectories.rewards.sum(-1).mean())
        True
    """
    return trajectories.returns.mean(-1)


def _ratio(policy: Policy, trajectories: Trajectories) -> Tensor:
    log_probs = trajectories.distribution(policy).log_prob(trajectories.actions)
    return ((log_probs - trajectories.log_probs) * trajectories.mask).exp()

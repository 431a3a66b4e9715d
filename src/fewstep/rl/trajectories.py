"""Episodes of an environment as tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewstep.rl.distributions import Distribution
from fewstep.rl.outputs import distribution_of
from fewstep.rl.record import Record


@dataclass(frozen=True, eq=False)
class Trajectories(Record):
    """Episodes of one task, ``[episodes, time, ...]``, or of several, ``[tasks, episodes, time, ...]``.

    All tensors are zero after the end of an episode. A loss must not count these steps: average with ``mean``, which
    applies the mask, as [`policy_gradient`][fewstep.rl.policy_gradient] does.

    Args:
        observations: ``[episodes, time, numbers]``, or images ``[episodes, time, height, width, channels]``.
        actions: the policy's actions, before conversion to the action space: ``[episodes, time, numbers]``, integers
            ``[episodes, time]``, or several integers ``[episodes, time, choices]``.
        rewards: the rewards in the units of the environment, ``[episodes, time]``.
        mask: 1 during the episode, 0 after its end, ``[episodes, time]``.
        advantages: normalised advantage estimates, ``[episodes, time]``.
        log_probs: log π(action | observation) of the sampling policy, ``[episodes, time]``.
        credit: the standardised mean return of the task among the tasks sampled together, a scalar per task. Only
            [`e_maml`][fewstep.rl.e_maml] uses it.

    Examples:
        A custom loss:

        >>> def advantage_weighted(policy, trajectories):
        ...     log_probs = trajectories.distribution(policy).log_prob(trajectories.actions)
        ...     return -trajectories.mean(log_probs * trajectories.advantages.exp())
        >>> from fewstep.rl import EnvironmentTasks, GaussianPolicy, Rollouts, environments
        >>> rollouts = Rollouts(environments.PointNavigation(num_envs=10), episodes=5, horizon=8)
        >>> policy, tasks = GaussianPolicy(2, 2), EnvironmentTasks(rollouts.environment).sample(1).support
        >>> params = {name: value[None] for name, value in policy.named_parameters()}
        >>> trajectories = rollouts(policy, params, tasks)[0]
        >>> trajectories.returns.shape, advantage_weighted(policy, trajectories).shape
        (torch.Size([5]), torch.Size([]))
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor
    advantages: Tensor
    log_probs: Tensor
    credit: Tensor

    @property
    def returns(self) -> Tensor:
        """The undiscounted sum of rewards of each episode, ``[episodes]``."""
        return (self.rewards * self.mask).sum(-1)

    @property
    def lengths(self) -> Tensor:
        """The number of steps of each episode, ``[episodes]``."""
        return self.mask.sum(-1)

    def distribution(self, policy: Callable[[Tensor], Any]) -> Distribution:
        """Compute the distribution of actions of a policy at the observations, ``[episodes, time]``."""
        return distribution_of(policy, self.observations, self.mask.ndim)

    def mean(self, values: Tensor) -> Tensor:
        """Average ``[episodes, time]`` over unmasked steps to a scalar, ``[tasks, episodes, time]`` to ``[tasks]``."""
        return (values * self.mask).sum((-2, -1)) / self.mask.sum((-2, -1))

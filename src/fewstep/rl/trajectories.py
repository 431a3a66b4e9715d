"""What is learned from: episodes of an environment, as tensors."""

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
    """Episodes of one task, ``[episodes, time, ...]``, or of many, ``[tasks, episodes, time, ...]``.

    What comes after the end of an episode is zero and masked; a loss must honour the mask, as those of
    [`losses`][fewstep.rl.losses] do.

    Args:
        observations: what the policy saw, ``[episodes, time, numbers]``, or images, ``[episodes, time, height, width,
            channels]``.
        actions: what it did, before it is brought to the environment's range: ``[episodes, time, numbers]``, or
            integers ``[episodes, time]``, several at once ``[episodes, time, choices]``.
        rewards: what it got for that, ``[episodes, time]``.
        mask: 1 while the episode goes on, else 0, ``[episodes, time]``.
        advantages: how much better the action is estimated to be than the policy's average, ``[episodes, time]``.
        log_probs: log π(action | observation) of the policy that acted, ``[episodes, time]``.
        credit: mean return of the task in standard deviations above the mean of the tasks sampled along with it, a
            scalar for each task. Only [`e_maml`][fewstep.rl.e_maml] looks at it.
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
        """Steps of each episode, ``[episodes]``."""
        return self.mask.sum(-1)

    def distribution(self, policy: Callable[[Tensor], Any]) -> Distribution:
        """The distribution of actions of a policy at the observations, ``[episodes, time]``."""
        return distribution_of(policy, self.observations, self.mask.ndim)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of ``[episodes, time]`` over the steps that are not masked, ``[]``; for many tasks, ``[tasks]``."""
        return (values * self.mask).sum((-2, -1)) / self.mask.sum((-2, -1))

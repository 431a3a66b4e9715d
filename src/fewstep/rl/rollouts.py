"""Sampling of episodes with one policy per task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from fewstep.adaptation.rules import Params
from fewstep.arguments import check_function, check_number, check_whole
from fewstep.parallel import current
from fewstep.rl.actions import ActionMap
from fewstep.rl.advantages import discounted_returns, generalized_advantages, normalized
from fewstep.rl.baselines import linear_baseline, time_baseline
from fewstep.rl.environment_tasks import EnvironmentTask
from fewstep.rl.environments.base import TaskEnvironment, check_environment
from fewstep.rl.sampler import Sampler
from fewstep.rl.trajectories import Trajectories

Baseline = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A function of (observations, returns, mask) that returns values, such as ``linear_baseline``."""


class Rollouts:
    """A function that samples episodes of tasks, each with its own policy (MAML, Algorithm 3, lines 5 and 8).

    Tasks of [`EnvironmentTasks`][fewstep.rl.EnvironmentTasks] name their environment, and may name a number of episodes
    and a horizon, which take precedence over those given here. A learner is therefore validated and tested in the
    environment of the validation or test tasks. Several learners and sources can share an environment.

    Episodes are distributed over the copies of the environment, in several rounds if there are more episodes than
    copies. [`ActionMap`][fewstep.rl.ActionMap] converts actions to the action space: those for a bounded ``Box`` from
    [−1, 1] to its range. All randomness is a function of the tasks' seeds and the inner step.

    Args:
        environment: a vector environment with tasks, such as
            [`PointNavigation`][fewstep.rl.environments.PointNavigation]. It is fastest with as many copies as a
            meta-batch has episodes.
        episodes: the number of episodes per task and inner step, K in the papers.
        horizon: the maximum number of steps of an episode; ``None`` uses the environment's ``horizon``.
        discount: the discount γ of the returns, between 0 and 1.
        gae_lambda: the λ of [`generalized_advantages`][fewstep.rl.generalized_advantages], between 0 and 1.
        baseline: a function of (observations, returns, mask) that fits values to the returns. ``None`` uses
            [`linear_baseline`][fewstep.rl.linear_baseline] for vector observations and
            [`time_baseline`][fewstep.rl.time_baseline] for images.

    Raises:
        TypeError: the environment is not a vector environment with tasks, or its spaces are not supported.
        ValueError: neither the environment nor the argument sets a horizon, or an argument is out of range.

    Examples:
        >>> from fewstep.rl import EnvironmentTasks, GaussianPolicy, environments
        >>> rollouts = Rollouts(environments.PointNavigation(num_envs=10), episodes=5, horizon=8)
        >>> policy, tasks = GaussianPolicy(2, 2), EnvironmentTasks(rollouts.environment).sample(2).support
        >>> params = {name: value.expand(2, *value.shape) for name, value in policy.named_parameters()}
        >>> rollouts(policy, params, tasks).rewards.shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        environment: TaskEnvironment,
        episodes: int = 20,
        horizon: int | None = None,
        discount: float = 0.99,
        gae_lambda: float = 1.0,
        baseline: Baseline | None = None,
    ) -> None:
        check_environment(environment, "Rollouts")
        ActionMap(environment.single_action_space)
        self._horizon = horizon
        horizon = self._horizon_of(environment)
        check_whole("Rollouts", episodes=episodes, horizon=horizon)
        check_number("Rollouts", 0, 1, discount=discount, gae_lambda=gae_lambda)
        if baseline is not None:
            check_function("Rollouts", "a function of (observations, returns, mask)", baseline=baseline)
        self.environment, self.episodes, self.horizon = environment, episodes, horizon
        self.discount, self.gae_lambda, self.baseline = discount, gae_lambda, baseline
        self._were_reset: WeakSet[Any] = WeakSet()
        self._baseline_of(environment)

    @torch.no_grad()
    def __call__(
        self, policy: nn.Module, params: Params, tasks: EnvironmentTask, step: int = 0, own: range | None = None
    ) -> Trajectories:
        """Sample episodes of each task with its policy.

        Args:
            policy: the module, which is called with observations ``[episodes, ...]``.
            params: the parameters of each task's policy, ``[tasks, ...]``.
            tasks: tasks with a leading task axis.
            step: the inner step, which determines the random numbers together with the tasks' seeds.
            own: the tasks that this process samples, if several processes share them; ``params`` are then those of
                these tasks. By default all.

        Returns:
            The episodes, ``[tasks, episodes, horizon, ...]``, of all tasks or of ``own``.

        Raises:
            ValueError: the policy does not fit the environment (before the first step), or the environment returned
                an observation or a reward that is NaN or infinite.
            TypeError: the policy does not return a supported distribution.
        """
        environment = self.environment_of(tasks)
        horizon = self._horizon_of(environment) if tasks.horizon is None else tasks.horizon
        baseline = self._baseline_of(environment)
        sampler = Sampler(environment, tasks.episodes or self.episodes, horizon, self._were_reset)
        count = len(tasks.seed)
        observations, actions, rewards, mask, log_probs = sampler(policy, params, tasks, step, own or range(count))
        returns = discounted_returns(rewards, mask, self.discount)
        values = baseline(observations, returns, mask)
        advantages = generalized_advantages(rewards, values, mask, self.discount, self.gae_lambda)
        scores = (rewards * mask).sum(-1).mean(-1)
        all_scores = scores if own is None else current().gather(scores, count)
        credit = (scores - all_scores.mean()) / (all_scores.std(correction=0) + 1e-8)
        return Trajectories(observations, actions, rewards, mask, normalized(advantages, mask), log_probs, credit)

    def environment_of(self, tasks: EnvironmentTask) -> TaskEnvironment:
        """Return the environment that the tasks name, or that of the rollouts if they name none."""
        return self.environment if tasks.environment is None else tasks.environment

    def _horizon_of(self, environment: TaskEnvironment) -> int:
        horizon: int | None = getattr(environment, "horizon", None) if self._horizon is None else self._horizon
        if horizon is None:
            raise ValueError(
                f"Rollouts: expected a horizon; {type(environment).__name__} does not define one. Pass horizon= to "
                "Rollouts or EnvironmentTasks."
            )
        return horizon

    def _baseline_of(self, environment: TaskEnvironment) -> Baseline:
        vectors = len(environment.single_observation_space.shape) == 1
        if self.baseline is linear_baseline and not vectors:
            raise ValueError(
                f"Rollouts: linear_baseline expects vector observations; those of {type(environment).__name__} are "
                f"{environment.single_observation_space}. Use baseline=fewstep.rl.time_baseline, or flatten them."
            )
        return self.baseline or (linear_baseline if vectors else time_baseline)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_were_reset": None}  # the copy has a new environment

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _were_reset=WeakSet())

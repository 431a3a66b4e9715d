"""Rolling out a policy per task, all tasks and episodes at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from fewstep.adaptation.rules import Params
from fewstep.rl.actions import ActionMap
from fewstep.rl.advantages import discounted_returns, generalized_advantages, normalized
from fewstep.rl.baselines import linear_baseline, time_baseline
from fewstep.rl.environment_tasks import EnvironmentTask
from fewstep.rl.environments.base import TaskEnvironment, check_environment
from fewstep.rl.sampler import Sampler
from fewstep.rl.trajectories import Trajectories

Baseline = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(observations, returns, mask) → values; see [`linear_baseline`][fewstep.rl.linear_baseline]."""


class Rollouts:
    """Samples episodes of tasks, each with a policy of its own.

    Tasks of [`EnvironmentTasks`][fewstep.rl.EnvironmentTasks] name the environment that they are of, and may name a
    number of episodes and a horizon; those win over the ones given here. So a learner is validated and tested in the
    environment of the validation or test tasks, and several learners and sources can share an environment.

    Episodes are spread over the copies of the environment; if there are more episodes than copies, round by round.
    Actions are brought to the action space as [`ActionMap`][fewstep.rl.ActionMap] says: those of a bounded ``Box`` from
    [−1, 1] to its range. All that is random is a function of the tasks' seeds and the number of the inner step.

    Args:
        environment: a vector environment with tasks, such as
            [`PointNavigation`][fewstep.rl.environments.PointNavigation]. As many copies as there are episodes in a
            meta-batch are fastest.
        episodes: of each task, per inner step; the papers' K.
        horizon: steps of an episode at most; the ``horizon`` of the tasks' environment if not given.
        discount: γ of the returns.
        gae_lambda: λ of generalised advantage estimation.
        baseline: values to subtract, from the episodes themselves. If not given, ``linear_baseline`` where observations
            are vectors, and ``time_baseline`` where they are not (images).

    Raises:
        TypeError: the environment is no vector environment with tasks, or its spaces cannot be used.
        ValueError: the environment has no horizon and none is given, or a setting is out of range.
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
        if episodes < 1 or horizon < 1:
            raise ValueError(f"Rollouts: episodes and horizon must be at least 1; got {episodes} and {horizon}.")
        for name, value in (("discount", discount), ("gae_lambda", gae_lambda)):
            if not 0 <= value <= 1:
                raise ValueError(f"Rollouts: {name} must be between 0 and 1; got {value}.")
        self.environment, self.episodes, self.horizon = environment, episodes, horizon
        self.discount, self.gae_lambda, self.baseline = discount, gae_lambda, baseline
        self._were_reset: WeakSet[Any] = WeakSet()
        self._baseline_of(environment)

    @torch.no_grad()
    def __call__(self, policy: nn.Module, params: Params, tasks: EnvironmentTask, step: int = 0) -> Trajectories:
        """Episodes of each task under its own policy, ``[tasks, episodes, horizon, ...]``.

        Args:
            policy: the module, called with observations ``[episodes, ...]``.
            params: its parameters for each task, ``[tasks, ...]`` each.
            tasks: with a leading task axis; in the environment given here if they name none.
            step: the inner step, which decides the random numbers beside the tasks' seeds.

        Raises:
            ValueError: before the first step, if policy and environment do not fit; or the environment gave an
                observation or a reward that is NaN or infinite.
            TypeError: the policy gives no distribution that can be used.
        """
        environment = self.environment_of(tasks)
        horizon = self._horizon_of(environment) if tasks.horizon is None else tasks.horizon
        baseline = self._baseline_of(environment)
        sampler = Sampler(environment, tasks.episodes or self.episodes, horizon, self._were_reset)
        observations, actions, rewards, mask, log_probs = sampler(policy, params, tasks, step)
        returns = discounted_returns(rewards, mask, self.discount)
        values = baseline(observations, returns, mask)
        advantages = generalized_advantages(rewards, values, mask, self.discount, self.gae_lambda)
        scores = (rewards * mask).sum(-1).mean(-1)
        credit = (scores - scores.mean()) / (scores.std(correction=0) + 1e-8)
        return Trajectories(observations, actions, rewards, mask, normalized(advantages, mask), log_probs, credit)

    def environment_of(self, tasks: EnvironmentTask) -> TaskEnvironment:
        """Where tasks are explored: in the environment that they name, or else in the one given here."""
        return self.environment if tasks.environment is None else tasks.environment

    def _horizon_of(self, environment: TaskEnvironment) -> int:
        horizon: int | None = getattr(environment, "horizon", None) if self._horizon is None else self._horizon
        if horizon is None:
            raise ValueError(
                f"Rollouts: {type(environment).__name__} has no horizon of its own; give horizon=... here or in "
                "EnvironmentTasks."
            )
        return horizon

    def _baseline_of(self, environment: TaskEnvironment) -> Baseline:
        vectors = len(environment.single_observation_space.shape) == 1
        if self.baseline is linear_baseline and not vectors:
            raise ValueError(
                f"Rollouts: linear_baseline takes vectors, and the observations of {type(environment).__name__} are "
                f"{environment.single_observation_space}. Take baseline=fewstep.rl.time_baseline, or flatten them."
            )
        return self.baseline or (linear_baseline if vectors else time_baseline)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_were_reset": None}  # a copy's environments are others

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _were_reset=WeakSet())

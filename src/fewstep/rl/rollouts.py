"""Rolling out a policy per task, all tasks and episodes at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fewstep.adaptation.rules import Params
from fewstep.rl.advantages import discounted_returns, generalized_advantages, normalized
from fewstep.rl.baselines import linear_baseline
from fewstep.rl.distributions import Distribution
from fewstep.rl.environment_tasks import EnvironmentTask
from fewstep.rl.environments.base import TaskEnvironment
from fewstep.rl.trajectories import Trajectories
from fewstep.tasks import generator

Baseline = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(observations, returns, mask) → values; see :func:`fewstep.rl.linear_baseline`."""


class Rollouts:
    """Samples episodes of tasks, each with a policy of its own.

    Episodes are spread over the copies of the environment; if there are more episodes than copies, round by round.
    Actions of a ``Box`` space are brought from [−1, 1] to its range and clipped there. All that is random is a function
    of the tasks' seeds and the number of the inner step.

    Args:
        environment: a vector environment with tasks, such as :class:`fewstep.rl.environments.PointNavigation`. As many
            copies as there are episodes in a meta-batch are fastest.
        episodes: of each task, per inner step; the papers' K.
        horizon: steps of an episode at most; the environment's ``horizon`` if not given.
        discount: γ of the returns.
        gae_lambda: λ of generalised advantage estimation.
        baseline: values to subtract, from the episodes themselves.

    Raises:
        ValueError: the environment has no horizon and none is given, or its action space cannot be used.
    """

    def __init__(
        self,
        environment: TaskEnvironment,
        episodes: int = 20,
        horizon: int | None = None,
        discount: float = 0.99,
        gae_lambda: float = 1.0,
        baseline: Baseline = linear_baseline,
    ) -> None:
        horizon = getattr(environment, "horizon", None) if horizon is None else horizon
        if horizon is None:
            raise ValueError(f"Rollouts: {type(environment).__name__} has no horizon of its own; give horizon=....")
        if episodes < 1 or horizon < 1:
            raise ValueError(f"Rollouts: episodes and horizon must be at least 1; got {episodes} and {horizon}.")
        for name, value in (("discount", discount), ("gae_lambda", gae_lambda)):
            if not 0 <= value <= 1:
                raise ValueError(f"Rollouts: {name} must be between 0 and 1; got {value}.")
        self.environment, self.episodes, self.horizon = environment, episodes, horizon
        self.discount, self.gae_lambda, self.baseline = discount, gae_lambda, baseline
        self._to_range = to_range(environment)
        self._all_were_reset = False

    @torch.no_grad()
    def __call__(self, policy: nn.Module, params: Params, tasks: EnvironmentTask, step: int = 0) -> Trajectories:
        """Episodes of each task under its own policy, ``[tasks, episodes, horizon, ...]``.

        Args:
            policy: the module, called with observations ``[episodes, numbers]``.
            params: its parameters for each task, ``[tasks, ...]`` each.
            tasks: with a leading task axis.
            step: the inner step, which decides the random numbers beside the tasks' seeds.

        Raises:
            ValueError: the environment gave an observation or a reward that is NaN or infinite.
        """
        count = len(tasks.seed)
        like = next(iter(params.values()))
        noise = torch.stack([self._noise(int(seed), step) for seed in tasks.seed], 1).to(like)
        seed = generator(int(tasks.seed.sum()), step, stream=1).initial_seed()

        copies, episodes = self.environment.num_envs, count * self.episodes
        with _one_thread():
            rounds = [
                self._round(policy, params, tasks, noise, range(start, min(start + copies, episodes)), seed + start)
                for start in range(0, episodes, copies)
            ]
        recorded = [torch.cat(parts, 1).unflatten(1, (count, -1)).movedim(0, 2) for parts in zip(*rounds, strict=True)]
        observations, actions, rewards, mask, log_probs = recorded
        returns = discounted_returns(rewards, mask, self.discount)
        values = self.baseline(observations, returns, mask)
        advantages = generalized_advantages(rewards, values, mask, self.discount, self.gae_lambda)
        scores = (rewards * mask).sum(-1).mean(-1)
        credit = (scores - scores.mean()) / (scores.std(correction=0) + 1e-8)
        return Trajectories(observations, actions, rewards, mask, normalized(advantages, mask), log_probs, credit)

    def _noise(self, seed: int, step: int) -> Tensor:
        numbers = int(np.prod(self.environment.single_action_space.shape))
        return torch.randn(self.horizon, self.episodes, max(numbers, 1), generator=generator(seed, step))

    def _round(
        self,
        policy: nn.Module,
        params: Params,
        tasks: EnvironmentTask,
        noise: Tensor,
        episodes: range,
        seed: int,
    ) -> list[Tensor]:
        """One episode in each copy of the environment, ``[horizon, episodes, ...]``; copies too many stand still.

        Episodes are counted through all tasks. The policies work on whole tasks; where a round holds a part of one, its
        other rows are empty.
        """
        environment, count = self.environment, len(episodes)
        first, last = episodes[0] // self.episodes, episodes[-1] // self.episodes + 1
        rows = slice(episodes[0] - first * self.episodes, episodes[0] - first * self.episodes + count)
        copies = torch.arange(environment.num_envs).clamp(max=count - 1)
        of_tasks = {name: value[first:last] for name, value in params.items()}

        def act(observations: Tensor, t: int) -> tuple[Tensor, Tensor]:
            """Actions and their log-probabilities for the round's observations."""
            grid = observations.new_zeros((last - first) * self.episodes, *observations.shape[1:])
            grid[rows] = observations
            distribution = torch.vmap(lambda own, seen: functional_call(policy, own, (seen,)))(
                of_tasks, grid.unflatten(0, (last - first, -1))
            )
            actions = _checked(distribution).sample(noise[t, first:last])
            log_probs = distribution.log_prob(actions)
            return actions.flatten(0, 1)[rows], log_probs.flatten(0, 1)[rows]

        environment.set_tasks(tasks.numbers[torch.tensor(episodes)[copies] // self.episodes])
        seen, _ = environment.reset(seed=seed, options=self._only(count))
        alive = np.ones(count, dtype=bool)
        recorded: list[Tensor] = []
        for t in range(self.horizon):
            observations = torch.as_tensor(seen[:count]).to(noise)
            actions, log_probs = act(observations, t)
            seen, rewards, terminated, truncated, _ = environment.step(self._to_range(actions)[copies.numpy()])
            self._check(seen[:count], rewards[:count], alive, t, episodes, tasks)
            now = (
                observations,
                actions,
                torch.as_tensor(rewards[:count]).to(noise),
                torch.ones_like(log_probs),
                log_probs,
            )
            recorded = recorded or [value.new_zeros(self.horizon, *value.shape) for value in now]
            going_on = torch.from_numpy(alive).to(noise.device)
            for tensor, value in zip(recorded, now, strict=True):
                tensor[t] = torch.where(going_on.view(-1, *[1] * (value.ndim - 1)), value, torch.zeros_like(value))
            alive &= ~(terminated | truncated)[:count]
            if not alive.any():
                break
        return recorded

    def _only(self, count: int) -> dict[str, Any] | None:
        """Options that reset the first ``count`` copies only: those whose episode is over are not worth a step."""
        number, all_were_reset = self.environment.num_envs, self._all_were_reset
        self._all_were_reset = True
        return {"reset_mask": np.arange(number) < count} if all_were_reset and count < number else None

    def _check(self, seen: Any, rewards: Any, alive: Any, t: int, episodes: range, tasks: EnvironmentTask) -> None:
        finite = np.isfinite(seen).reshape(len(alive), -1).all(1)
        for what, good in (("an observation", finite), ("a reward", np.isfinite(rewards))):
            if not (good | ~alive).all():
                task = episodes[int(np.flatnonzero(~good & alive)[0])] // self.episodes
                raise ValueError(
                    f"{type(self.environment).__name__} gave {what} that is NaN or infinite at step {t} of task {task} "
                    f"of the batch, whose numbers are {tasks.numbers[task].tolist()}. Look for actions or tasks that "
                    "it cannot bear."
                )


@contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch's threads wait for work in a loop, and so would take cores from an environment that has threads too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _checked(distribution: Any) -> Distribution:
    if not callable(getattr(distribution, "log_prob", None)) or not callable(getattr(distribution, "sample", None)):
        raise TypeError(
            "A policy must give a distribution such as fewstep.rl.Gaussian or fewstep.rl.Categorical for observations; "
            f"got {type(distribution).__name__}."
        )
    return distribution


def to_range(environment: TaskEnvironment) -> Callable[[Tensor], Any]:
    """What brings the actions of a policy, in [−1, 1] where they are numbers, to the action space, as arrays."""
    space = environment.single_action_space
    if hasattr(space, "n"):
        return lambda actions: actions.cpu().numpy()
    if not hasattr(space, "low") or not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(f"Rollouts: the action space must be Discrete, or a Box with finite bounds; got {space}.")
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return lambda actions: np.clip(low + (actions.cpu().numpy() + 1) / 2 * (high - low), low, high)

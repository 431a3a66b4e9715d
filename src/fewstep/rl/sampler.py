"""Sampling of episodes in rounds over the copies of an environment, with one policy per task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn

from fewstep.adaptation.rules import Params
from fewstep.learner.functional_loss import call
from fewstep.rl.actions import ActionMap
from fewstep.rl.distributions import Distribution
from fewstep.rl.environment_tasks import EnvironmentTask
from fewstep.rl.environments.base import TaskEnvironment
from fewstep.rl.outputs import distribution_of
from fewstep.tasks import generator


class Sampler:
    """Sample episodes of tasks in one environment.

    Args:
        environment: the environment.
        episodes: the number of episodes per task.
        horizon: the maximum number of steps of an episode.
        were_reset: the environments all of whose copies have been reset at least once; this one is added.
    """

    def __init__(self, environment: TaskEnvironment, episodes: int, horizon: int, were_reset: WeakSet[Any]) -> None:
        self.environment, self.episodes, self.horizon = environment, episodes, horizon
        self._actions = ActionMap(environment.single_action_space)
        self._were_reset = were_reset
        self._name = type(environment).__name__

    def __call__(
        self, policy: nn.Module, params: Params, tasks: EnvironmentTask, step: int, own: range
    ) -> list[Tensor]:
        """Return observations, actions, rewards, mask, log-probabilities, ``[tasks, episodes, horizon, ...]`` each.

        Only the episodes of the tasks in ``own`` are sampled: those that are sampled for all tasks.
        """
        # Episode e of all tasks starts from this seed plus e.
        seed = generator(int(tasks.seed.sum()), step, stream=1).initial_seed() + own.start * self.episodes
        tasks, count = tasks[own.start : own.stop], len(own)
        like = next(iter(params.values()))
        noise = torch.stack([self._noise(int(each), step) for each in tasks.seed], 1).to(like)
        copies, episodes = self.environment.num_envs, count * self.episodes
        with _one_thread():
            rounds = [
                self._round(policy, params, tasks, noise, range(start, min(start + copies, episodes)), seed + start)
                for start in range(0, episodes, copies)
            ]
        return [torch.cat(parts, 1).unflatten(1, (count, -1)).movedim(0, 2) for parts in zip(*rounds, strict=True)]

    def _noise(self, seed: int, step: int) -> Tensor:
        numbers = max(self._actions.numbers, 1)
        return torch.randn(self.horizon, self.episodes, numbers, generator=generator(seed, step))

    def _round(
        self,
        policy: nn.Module,
        params: Params,
        tasks: EnvironmentTask,
        noise: Tensor,
        episodes: range,
        seed: int,
    ) -> list[Tensor]:
        """Sample one episode in each copy of the environment, ``[horizon, episodes, ...]``.

        ``episodes`` are indices over the episodes of all tasks. Policies are evaluated on all episodes of a task; the
        observations of those that are not part of the round are zero. Surplus copies are not recorded.
        """
        environment, count = self.environment, len(episodes)
        first, last = episodes[0] // self.episodes, episodes[-1] // self.episodes + 1
        rows = slice(episodes[0] - first * self.episodes, episodes[0] - first * self.episodes + count)
        copies = torch.arange(environment.num_envs).clamp(max=count - 1)
        of_tasks = {name: value[first:last] for name, value in params.items()}

        def act(observations: Tensor, t: int) -> tuple[Tensor, Tensor]:
            """Compute actions and their log-probabilities for the observations of the round."""
            grid = observations.new_zeros((last - first) * self.episodes, *observations.shape[1:])
            grid[rows] = observations
            distribution = self._outputs(policy, of_tasks, grid.unflatten(0, (last - first, -1)), first_step=t == 0)
            if t == 0:
                self._actions.check(distribution, noise[t, first:last], self._name)
            actions = distribution.sample(noise[t, first:last])
            log_probs = distribution.log_prob(actions)
            return actions.flatten(0, 1)[rows], log_probs.flatten(0, 1)[rows]

        environment.set_tasks(tasks.numbers[torch.tensor(episodes)[copies] // self.episodes])
        seen, _ = environment.reset(seed=seed, options=self._only(count))
        alive = np.ones(count, dtype=bool)
        recorded: list[Tensor] = []
        for t in range(self.horizon):
            observations = torch.as_tensor(seen[:count]).to(noise)
            actions, log_probs = act(observations, t)
            seen, rewards, terminated, truncated, _ = environment.step(self._actions(actions)[copies.numpy()])
            self._check(seen[:count], rewards[:count], alive, t, episodes, tasks)
            now = (
                observations,
                actions,
                torch.as_tensor(rewards[:count]).to(noise),
                torch.ones_like(log_probs),
                log_probs,
            )
            recorded = recorded or [value.new_zeros(self.horizon, *value.shape) for value in now]
            running = torch.from_numpy(alive).to(noise.device)
            for tensor, value in zip(recorded, now, strict=True):
                tensor[t] = torch.where(running.view(-1, *[1] * (value.ndim - 1)), value, torch.zeros_like(value))
            alive &= ~(terminated | truncated)[:count]
            if not alive.any():
                break
        return recorded

    def _outputs(self, policy: nn.Module, params: Params, observations: Tensor, first_step: bool) -> Distribution:
        """The tasks' distributions of actions, ``[tasks, episodes]``; errors of the first step name the environment."""
        try:
            found: Distribution = torch.vmap(lambda own, seen: distribution_of(lambda x: call(policy, own, x), seen))(
                params, observations
            )
        except (RuntimeError, ValueError, IndexError) as error:
            if not first_step or isinstance(error, torch.OutOfMemoryError):
                raise
            raise ValueError(
                f"{type(policy).__name__} failed on the observations of {self._name}. Expected a policy for "
                f"{self.environment.single_observation_space}, {_size(observations.shape[2:])} for each of "
                f"[tasks, episodes]; got the error: {error}"
            ) from error
        return found

    def _only(self, count: int) -> dict[str, Any] | None:
        """The options of a reset of only the first ``count`` copies."""
        number, all_were_reset = self.environment.num_envs, self.environment in self._were_reset
        self._were_reset.add(self.environment)
        return {"reset_mask": np.arange(number) < count} if all_were_reset and count < number else None

    def _check(self, seen: Any, rewards: Any, alive: Any, t: int, episodes: range, tasks: EnvironmentTask) -> None:
        finite = np.isfinite(seen).reshape(len(alive), -1).all(1)
        for what, good in (("an observation", finite), ("a reward", np.isfinite(rewards))):
            if not (good | ~alive).all():
                task = episodes[int(np.flatnonzero(~good & alive)[0])] // self.episodes
                raise ValueError(
                    f"{self._name} returned {what} that is NaN or infinite at step {t} of task {task} of the batch "
                    f"(numbers {tasks.numbers[task].tolist()}); expected finite values. Check that the task and the "
                    "policy's actions are in the range that the environment supports."
                )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} numbers" if len(shape) == 1 else f"shape {list(shape)}"


@contextmanager
def _one_thread() -> Iterator[None]:
    """A context with one PyTorch thread, since idle PyTorch threads would occupy cores that the environment uses."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

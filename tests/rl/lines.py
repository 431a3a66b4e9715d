"""Environments and policies as others bring them: a point on a line, in many action and observation spaces."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

import fewstep as fs
from fewstep import rl
from fewstep.rl.environments import GymnasiumTasks


class Line(gymnasium.Env):
    """A point on a line moves by a tenth of its action; the reward is minus its distance from the goal.

    It remembers the actions that it was given. ``penalty`` makes it another world.
    """

    def __init__(self, action_space: Any = None, observe: str = "vector", penalty: float = 0.0):
        numbers = spaces.Box(-10, 10, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32) if action_space is None else action_space
        self.observe, self.penalty, self.goal, self.seen = observe, penalty, 0.0, []
        self.observation_space = {
            "vector": numbers,
            "image": spaces.Box(0, 255, (6, 5, 3), np.uint8),
            "dictionary": spaces.Dict({"which": spaces.Discrete(3), "x": numbers}),
        }[observe]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = 0.0, 0
        return self.observation(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.seen.append(np.array(action))
        self.x += 0.1 * float(np.sum(action))
        self.t += 1
        return self.observation(), -abs(self.x - self.goal) - self.penalty, False, self.t >= 10, {}

    def observation(self):
        if self.observe == "image":
            picture = np.zeros((6, 5, 3), np.uint8)
            picture[:, int(np.clip(self.x + 2, 0, 4))] = 255
            return picture
        x = np.array([self.x], np.float32)
        return {"which": self.t % 3, "x": x} if self.observe == "dictionary" else x


def set_goal(line: gymnasium.Env, task: torch.Tensor) -> None:
    line.unwrapped.goal = float(task)


def sample_goals(n: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(n, 1, generator=generator) * 2 - 1


def lines(make: Any = Line, num_envs: int = 4, processes: bool = False) -> tuple[GymnasiumTasks, list[Any]]:
    """Copies, and the environments that they were made of."""
    made: list[Any] = []

    def remembered() -> gymnasium.Env:
        made.append(make())
        return made[-1]

    return GymnasiumTasks(remembered, sample_goals, set_goal, num_envs, processes=processes), made


def learner(environment: Any, policy: torch.nn.Module, **choices: Any) -> rl.MetaPolicy:
    rollouts = rl.Rollouts(environment, episodes=2, horizon=choices.pop("horizon", 10))
    return rl.MetaPolicy(policy, rollouts, rule=fs.GradientDescent(0.1), steps=1, **choices)


def actions_seen(made: list[Any]) -> np.ndarray:
    return np.array([action for line in made for action in line.unwrapped.seen])


def tasks_of(environment: Any, count: int = 2, **choices: Any) -> fs.tasks.Task:
    """Always the same ones."""
    return rl.EnvironmentTasks(environment, **choices).sample(count, fs.tasks.generator(0, 0))

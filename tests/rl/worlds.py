"""What the tests of reinforcement learning share: a small learner on 2D navigation, and its episodes."""

from typing import Any

import torch

import fewstep as fs
from fewstep import rl
from fewstep.rl.environments import PointNavigation


def learner(steps: int = 1, episodes: int = 3, horizon: int = 6, copies: int = 12, **choices: Any) -> rl.MetaPolicy:
    """A smooth policy, so that derivatives of every order exist."""
    policy = choices.pop("policy", None) or rl.GaussianPolicy(2, 2, [8], activation=torch.nn.Tanh)
    rollouts = rl.Rollouts(PointNavigation(copies, horizon=horizon), episodes)
    choices.setdefault("rule", fs.GradientDescent(0.1))
    return rl.MetaPolicy(policy, rollouts, steps=steps, **choices)


def tasks(learner: rl.MetaPolicy, count: int = 4, iteration: int = 0) -> fs.tasks.Task:
    """Always the same ones."""
    drawn = rl.EnvironmentTasks(learner.rollouts.environment).sample(count, fs.tasks.generator(0, iteration))
    return drawn.to(next(learner.parameters()).dtype)

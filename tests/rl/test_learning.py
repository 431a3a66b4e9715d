"""2D navigation is learned."""

import torch

import fewstep as fs
from fewstep import rl
from fewstep.rl.environments import PointNavigation


def test_one_update_finds_the_goal():
    torch.manual_seed(0)
    environment = PointNavigation(num_envs=100)
    rollouts = rl.Rollouts(environment, episodes=10)
    learner = rl.MetaPolicy(rl.GaussianPolicy(2, 2, [32, 32]), rollouts, rule=fs.GradientDescent(0.1))
    tasks = rl.EnvironmentTasks(environment)
    at_first = fs.evaluate(learner, tasks, num_tasks=20, steps=1)
    fs.fit(learner, tasks, rl.TRPO(learner), iterations=20, meta_batch=10, progress=False)
    learned = fs.evaluate(learner, tasks, num_tasks=20, steps=1)
    before, after = learned.mean
    assert before - learned.ci95[0] > at_first.mean[0] + at_first.ci95[0]
    assert after - learned.ci95[1] > before + learned.ci95[0]
    assert after > -25

"""Sampling against a plain loop over one environment, one task and one episode."""

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

import fewstep as fs
from fewstep import rl
from fewstep.rl.environments import HalfCheetahDirection, PointNavigation


def own_params(policy, tasks):
    return {name: value + 0.1 * torch.randn(tasks, *value.shape) for name, value in policy.named_parameters()}


def sample(copies, episodes=3, horizon=20, goals=None, policy=None, step=1):
    """Goals near the start, so that some episodes end early."""
    torch.manual_seed(0)
    environment = PointNavigation(copies, horizon=horizon)
    policy = policy or rl.GaussianPolicy(2, 2, [8], std=0.2)
    goals = torch.tensor([[0.02, 0.0], [0.3, -0.4], [0.0, -0.015], [0.2, 0.2]]) if goals is None else goals
    tasks = rl.EnvironmentTask(goals, torch.arange(len(goals)) + 7)
    params = own_params(policy, len(goals))
    return policy, params, tasks, rl.Rollouts(environment, episodes)(policy, params, tasks, step)


def test_agrees_with_a_plain_loop():
    policy, params, tasks, found = sample(copies=12)
    assert found.observations.shape == (4, 3, 20, 2)
    assert 0 < (found.lengths < 20).sum() < 12, "some episodes should end early, and some not"
    for i, goal in enumerate(tasks.numbers):
        own = {name: value[i] for name, value in params.items()}
        noise = torch.randn(20, 3, 2, generator=fs.tasks.generator(int(tasks.seed[i]), 1))
        for episode in range(3):
            position, ended = np.zeros(2), False
            for t in range(20):
                place = found.rewards[i, episode, t], found.mask[i, episode, t], found.log_probs[i, episode, t]
                if ended:
                    assert place == (0, 0, 0)
                    continue
                seen = torch.tensor(position, dtype=torch.float32)
                distribution = functional_call(policy, own, (seen,))
                normal = torch.distributions.Normal(distribution.mean, distribution.log_std.exp())
                action = normal.mean + normal.stddev * noise[t, episode]
                torch.testing.assert_close(found.observations[i, episode, t], seen)
                torch.testing.assert_close(found.actions[i, episode, t], action)
                position = position + np.clip(0.1 * action.detach().double().numpy(), -0.1, 0.1)
                offset = position - goal.double().numpy()
                log_prob = normal.log_prob(action).sum().item()
                assert [x.item() for x in place] == pytest.approx([-np.hypot(*offset), 1.0, log_prob], abs=1e-4)
                ended = bool((abs(offset) < 0.01).all())


def test_the_number_of_copies_changes_nothing():
    expected = sample(copies=12)[3]
    for copies in (1, 5, 100):
        found = sample(copies)[3]
        for ours, theirs in zip(vars(found).values(), vars(expected).values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_copies_that_are_not_needed_stand_still():
    def sampled(copies: int) -> tuple[rl.Trajectories, list[int]]:
        cheetahs, policy = HalfCheetahDirection(copies, horizon=4), rl.GaussianPolicy(17, 6, [4])
        rollouts = rl.Rollouts(cheetahs, episodes=2)
        tasks = rl.EnvironmentTasks(cheetahs).sample(3, fs.tasks.generator(0, 0))
        params = {name: value[None] for name, value in policy.named_parameters()}
        advance, stepped = cheetahs.physics.step, []
        cheetahs.physics.step = lambda actions, chosen: stepped.append(int(chosen.sum())) or advance(actions, chosen)
        torch.manual_seed(0)
        rollouts(policy, {name: value.expand(3, *value.shape[1:]) for name, value in params.items()}, tasks.support)
        stepped.clear()
        return rollouts(policy, params, tasks[:1].support), stepped

    torch.manual_seed(0)
    few, of_few = sampled(2)
    torch.manual_seed(0)
    many, of_many = sampled(6)
    assert of_few == of_many == [2] * 4
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(few), tree_leaves(many), strict=True))


def test_is_a_function_of_seeds_and_step_only():
    first, again, other = sample(12)[3], sample(12)[3], sample(12, step=2)[3]
    assert torch.equal(first.actions, again.actions)
    assert not torch.equal(first.actions[:, :, 0], other.actions[:, :, 0])


class Corridor(PointNavigation):
    """The same with a discrete action space: stay, right, left; and a flaw to test with."""

    broken = False

    def __init__(self, num_envs):
        super().__init__(num_envs, horizon=5)
        from gymnasium.spaces import Discrete

        self.single_action_space = Discrete(3)

    def step(self, actions):
        moves = np.array([[0.0, 0.0], [0.1, 0.0], [-0.1, 0.0]])[actions]
        observations, rewards, *rest = super().step(moves)
        if self.broken and self._steps[0] == 3:
            rewards[4] = np.nan
        return observations, rewards, *rest


def test_discrete_actions():
    policy = rl.CategoricalPolicy(2, 3, [8])
    tasks = rl.EnvironmentTask(torch.full((2, 2), 0.5), torch.tensor([1, 2]))
    found = rl.Rollouts(Corridor(8), episodes=4)(policy, own_params(policy, 2), tasks)
    assert found.actions.dtype == torch.int64
    assert set(found.actions.unique().tolist()) == {0, 1, 2}
    moved = found.observations[:, :, 1:, 0] - found.observations[:, :, :-1, 0]
    expected = torch.tensor([0.0, 0.1, -0.1])[found.actions[:, :, :-1]]
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)


def test_says_where_an_environment_goes_wrong():
    policy, environment = rl.CategoricalPolicy(2, 3, [8]), Corridor(8)
    environment.broken = True
    tasks = rl.EnvironmentTask(torch.tensor([[0.5, 0.5], [0.25, 0.5]]), torch.tensor([1, 2]))
    with pytest.raises(
        ValueError, match=r"Corridor returned a reward that is NaN .* step 2 of task 1 .* \[0.25, 0.5\]"
    ):
        rl.Rollouts(environment, episodes=4)(policy, own_params(policy, 2), tasks)
    linear = torch.nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"must return a distribution, such as .* got Tensor"):
        rl.Rollouts(PointNavigation(2), episodes=1)(linear, own_params(linear, 2), tasks)


def test_refuses_settings_that_cannot_be():
    environment = PointNavigation(2)
    with pytest.raises(ValueError, match="discount must be a number from 0 to 1"):
        rl.Rollouts(environment, discount=1.5)
    del environment.horizon
    with pytest.raises(ValueError, match="PointNavigation does not define one. Pass horizon="):
        rl.Rollouts(environment)


def test_tasks_are_a_function_of_the_generator():
    source = rl.EnvironmentTasks(PointNavigation(2))
    first, again = (source.sample(5, fs.tasks.generator(0, 3)).support for _ in range(2))
    assert torch.equal(first.numbers, again.numbers)
    assert torch.equal(first.seed, again.seed)
    assert len(first.seed.unique()) == 5

"""Observations of every kind: sizes that do not fit, images, dictionaries, and wrappers with a state."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import wrappers
from lines import Line, learner, lines, tasks_of
from torch import nn

from fewstep import rl
from fewstep.rl.environments import HalfCheetahDirection


def test_observation_sizes_that_do_not_fit_are_refused_with_both_numbers():
    cheetah = HalfCheetahDirection(4)
    with pytest.raises(
        ValueError, match="HalfCheetahDirection. .*17 numbers .* expects observations of 11 numbers; got 17"
    ):
        learner(cheetah, rl.GaussianPolicy(11, 6)).score(tasks_of(cheetah))

    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(11, 6)

        def forward(self, x):
            return rl.Gaussian(self.net(x), torch.zeros_like(self.net(x)))

    with pytest.raises(ValueError, match=r"Foreign failed on .*\(17,\).* 17\] but got: \[2, 11\]"):
        learner(cheetah, Foreign()).score(tasks_of(cheetah))


class Pictures(nn.Module):
    """A convolutional policy, as people write it for pictures of [batch, height, width, channels]."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 4 * 3, 1))

    def forward(self, x):
        assert x.ndim == 4, x.shape
        mean = self.net(x.permute(0, 3, 1, 2) / 255)
        return rl.Gaussian(mean, torch.zeros_like(mean))


def test_images_reach_a_convolutional_policy_and_have_a_baseline():
    environment, _ = lines(partial(Line, observe="image"))
    torch.manual_seed(0)
    meta = learner(environment, Pictures())
    episodes = meta.collect(tasks_of(environment))
    assert episodes.query.observations.shape == (2, 2, 10, 6, 5, 3)
    assert set(episodes.query.observations.unique().tolist()) == {0.0, 255.0}
    loss = meta.loss_on(episodes)
    loss.backward()
    assert all(value.grad.isfinite().all() for value in meta.parameters())
    rl.TRPO(meta).meta_step(tasks_of(environment))
    policy = meta.adapt(tasks_of(environment)[0].support)
    assert policy.act(Line(observe="image").reset()[0]).shape == (1,)
    with pytest.raises(ValueError, match=r"linear_baseline expects vector observations; .*time_baseline"):
        rl.Rollouts(environment, 2, 10, baseline=rl.linear_baseline)
    with pytest.raises(ValueError, match=r"linear_baseline expects observations .*; got shape \[1, 2, 3, 6, 5, 3\]"):
        rl.linear_baseline(torch.zeros(1, 2, 3, 6, 5, 3), torch.zeros(1, 2, 3), torch.ones(1, 2, 3))


def test_the_time_baseline_is_least_squares_on_time():
    returns, mask = torch.randn(2, 3, 7).double(), torch.ones(2, 3, 7).double()
    mask[0, 1, 4:] = 0
    found = rl.time_baseline(torch.zeros(2, 3, 7, 4, 4, 3), returns, mask)
    t = np.arange(7) / 100
    features = np.stack([t, t**2, t**3, np.ones(7)], 1)
    for task in range(2):
        rows = np.tile(features, (3, 1))[mask[task].flatten().bool().numpy()]
        values = returns[task].flatten()[mask[task].flatten().bool()].numpy()
        weights = np.linalg.solve(rows.T @ rows + 1e-5 * np.eye(4), rows.T @ values)
        np.testing.assert_allclose(found[task, 2].numpy(), features @ weights, rtol=1e-6)


@pytest.mark.parametrize("processes", [False, True])
def test_dictionaries_are_flattened_as_gymnasium_does(processes):
    environment, _ = lines(partial(Line, observe="dictionary"), processes=processes)
    wrapped, _ = lines(lambda: wrappers.FlattenObservation(Line(observe="dictionary")))
    assert environment.single_observation_space == wrapped.single_observation_space
    policy = rl.GaussianPolicy(4, 1, [4])
    ours, theirs = (learner(e, policy) for e in (environment, wrapped))
    found = ours.collect(tasks_of(environment)).query.observations
    assert torch.equal(found, theirs.collect(tasks_of(wrapped)).query.observations)
    torch.testing.assert_close(found[0, 0, :3, :3], torch.eye(3))  # which, one-hot
    act = ours.adapt(tasks_of(environment)[0].support).act
    raw = {"which": 2, "x": np.array([0.5], np.float32)}
    flat = np.array([0, 0, 1, 0.5], np.float32)
    assert act(raw, deterministic=True) == act(flat, deterministic=True)
    environment.close()


# Wrappers with a state


def test_running_statistics_are_warned_of():
    with pytest.warns(UserWarning, match="NormalizeObservation keeps running statistics .* is not identical"):
        lines(lambda: wrappers.NormalizeObservation(Line()))
    with pytest.warns(UserWarning, match="NormalizeReward"):
        lines(lambda: wrappers.TimeLimit(wrappers.NormalizeReward(Line()), 5))
    with pytest.raises(
        TypeError, match="NormalizeReward has no sample_tasks, set_tasks. Gymnasium's wrappers of vector"
    ):
        rl.EnvironmentTasks(wrappers.vector.NormalizeReward(lines()[0]))

    class WithTasks(wrappers.vector.NormalizeReward):
        def sample_tasks(self, n, generator):
            return self.env.sample_tasks(n, generator)

        def set_tasks(self, tasks):
            self.env.set_tasks(tasks)

    with pytest.warns(UserWarning, match="WithTasks keeps running statistics"):
        rl.EnvironmentTasks(WithTasks(lines()[0]))
    lines(lambda: wrappers.TransformReward(Line(), lambda reward: 0.1 * reward))

"""Tasks know their environment; action and observation spaces of every kind, and what does not fit is refused."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces, wrappers
from lines import Line, actions_seen, learner, lines, tasks_of

import fewstep as fs
from fewstep import rl
from fewstep.rl.environments import HalfCheetahDirection, PointNavigation

# Which environment, how many episodes, how long


def test_evaluate_runs_the_environment_of_the_tasks():
    train, test = lines()[0], lines(partial(Line, penalty=100.0))[0]
    meta = learner(train, rl.GaussianPolicy(1, 1))
    ours, theirs = (fs.evaluate(meta, rl.EnvironmentTasks(e), num_tasks=3, steps=1).values for e in (train, test))
    torch.testing.assert_close(theirs[:, 0], ours[:, 0] - 10 * 100)  # the same goals, noise and policy
    assert (ours > -100).all()


def test_fit_validates_in_the_environment_of_the_validation_tasks(tmp_path):
    train, test = lines()[0], lines(partial(Line, penalty=100.0))[0]
    meta = learner(train, rl.GaussianPolicy(1, 1, [4]))
    optimizer = rl.TRPO(meta)
    rows = fs.fit(
        meta, rl.EnvironmentTasks(train), optimizer, iterations=1, meta_batch=2, validate_every=1,
        validation=rl.EnvironmentTasks(test), num_validation_tasks=2, log_every=1, progress=False,
    )  # fmt: skip
    assert rows[-1]["validation"] < -1000


def test_adapt_explores_where_the_task_is():
    train, test = lines()[0], lines()
    meta = learner(train, rl.GaussianPolicy(1, 1))
    meta.adapt(tasks_of(test[0])[0].support)
    assert len(test[1][1].seen) > 0


def test_episodes_and_horizon_are_those_of_the_source():
    environment = PointNavigation(4, horizon=12)
    meta = rl.MetaPolicy(rl.GaussianPolicy(2, 2), rl.Rollouts(environment, 3), rule=fs.GradientDescent(0.1), steps=1)
    shapes = [
        tuple(meta.collect(tasks_of(environment, **choices)).query.rewards.shape)
        for choices in ({}, {"episodes": 5}, {"horizon": 7}, {"episodes": 1, "horizon": 20})
    ]
    assert shapes == [(2, 3, 12), (2, 5, 12), (2, 3, 7), (2, 1, 20)]
    other = PointNavigation(4, horizon=30)
    assert meta.collect(tasks_of(other)).query.rewards.shape == (2, 3, 30)
    explicit = learner(environment, rl.GaussianPolicy(2, 2), horizon=8)
    assert explicit.collect(tasks_of(other)).query.rewards.shape == (2, 2, 8)


def test_evaluate_is_the_mean_over_the_episodes_of_the_source():
    environment = PointNavigation(40, horizon=5)
    meta = learner(environment, rl.GaussianPolicy(2, 2))
    found = fs.evaluate(meta, rl.EnvironmentTasks(environment, episodes=20), num_tasks=4, steps=0)
    by_hand = meta.episodes(rl.EnvironmentTasks(environment, 20).sample(4, fs.tasks.generator(0, 0, 2)), 0)[0]
    assert by_hand.rewards.shape == (4, 20, 10)
    torch.testing.assert_close(found.values[:, 0], by_hand.rewards.double().sum(-1).mean(-1), rtol=1e-5, atol=1e-5)


def test_learners_and_sources_share_an_environment():
    environment, alone = HalfCheetahDirection(4, horizon=4), HalfCheetahDirection(4, horizon=4)
    torch.manual_seed(0)
    policies = [rl.GaussianPolicy(17, 6, [4]) for _ in range(2)]
    sharing = [learner(environment, policy) for policy in policies]
    own = [learner(alone, policies[0]), learner(HalfCheetahDirection(4, horizon=4), policies[1])]
    for count in (1, 2, 1):  # copies are left over, and not
        for ours, theirs in zip(sharing, own, strict=True):
            tasks = tasks_of(environment, count)
            expected = theirs.score(tasks_of(theirs.rollouts.environment, count))
            assert torch.equal(ours.score(tasks), expected)


def test_a_source_of_given_tasks():
    goals = rl.environments.paper_goals()
    source = rl.EnvironmentTasks(PointNavigation(4), tasks=goals)
    assert torch.equal(source.sample(40).support.numbers, goals)
    few = source.sample(7, fs.tasks.generator(0, 0)).support.numbers
    assert len(few.unique(dim=0)) == 7
    assert all((goals == goal).all(1).any() for goal in few)
    with pytest.raises(ValueError, match="fixed set of 40 tasks; got a request for 41"):
        source.sample(41)
    with pytest.raises(ValueError, match=r"\[tasks, numbers\]; got \[2\]"):
        rl.EnvironmentTasks(PointNavigation(4), tasks=torch.zeros(2))


def test_sources_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="episodes must be at least 1; got 0"):
        rl.EnvironmentTasks(PointNavigation(2), episodes=0)
    with pytest.raises(TypeError, match="horizon must be"):
        rl.EnvironmentTasks(PointNavigation(2), horizon=1.5)
    with pytest.raises(TypeError, match=r"Line has no num_envs.*GymnasiumTasks"):
        rl.EnvironmentTasks(Line())
    meta = rl.MetaPolicy(rl.GaussianPolicy(1, 1), rl.Rollouts(PointNavigation(2), 2), rule=fs.GradientDescent(0.1))
    tasks = tasks_of(lines()[0])
    with pytest.raises(ValueError, match="GymnasiumTasks does not define one"):
        meta.score(tasks)


# Actions


@pytest.mark.parametrize(
    ("space", "policy", "expected"),
    [
        (spaces.Discrete(3, start=-1), lambda: rl.CategoricalPolicy(1, 3, [4]), {-1, 0, 1}),
        (spaces.Discrete(2), lambda: rl.CategoricalPolicy(1, 2, [4]), {0, 1}),
        (spaces.MultiDiscrete([3, 2]), lambda: rl.MultiCategoricalPolicy(1, [3, 2], [4]), {0, 1, 2}),
        (spaces.MultiDiscrete([2, 2], start=[5, -5]), lambda: rl.MultiCategoricalPolicy(1, [2, 2]), {5, 6, -5, -4}),
        (spaces.MultiBinary(2), lambda: rl.MultiCategoricalPolicy(1, [2, 2], [4]), {0, 1}),
    ],
)
def test_discrete_actions_have_the_right_numbers(space, policy, expected):
    environment, made = lines(partial(Line, space))
    torch.manual_seed(0)
    meta = learner(environment, policy(), chunk=3)
    meta.meta_loss(tasks_of(environment, 4)).backward()
    rl.TRPO(meta).meta_step(tasks_of(environment, 4))
    rl.ProMP(meta).meta_step(tasks_of(environment, 4))
    assert {int(number) for number in actions_seen(made).reshape(-1)} == expected
    action = meta.adapt(tasks_of(environment)[0].support).act(np.zeros(1, np.float32))
    assert space.contains(action)


@pytest.mark.parametrize(
    ("space", "numbers", "low", "high"),
    [
        (spaces.Box(-2.0, 6.0, (1,)), 1, [-2.0], [6.0]),
        (spaces.Box(-2.0, 2.0, (2, 3)), 6, [[-2.0] * 3] * 2, [[2.0] * 3] * 2),
        (spaces.Box(-np.inf, np.inf, (1,)), 1, None, None),
        (
            spaces.Box(np.array([0.0, -np.inf], np.float32), np.array([np.inf, 0.5], np.float32)),
            2,
            [0, -9e9],
            [9e9, 0.5],
        ),
        (spaces.Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (1,)), 1, None, None),
    ],
)
def test_boxes_bounded_or_not(space, numbers, low, high):
    environment, made = lines(partial(Line, space))
    torch.manual_seed(0)
    meta = learner(environment, rl.GaussianPolicy(1, numbers, [4], std=3.0))
    episodes = meta.episodes(tasks_of(environment), steps=0)[0]
    actions = episodes.actions.reshape(-1, *space.shape).double().numpy()
    bounded = np.isfinite(space.low) & np.isfinite(space.high) & (space.high < 1e30)
    expected = actions if not bounded.any() else space.low + (actions + 1) / 2 * (space.high - space.low)
    if low is not None:
        expected = np.clip(expected, np.array(low), np.array(high))
    seen = actions_seen(made)  # in another order
    np.testing.assert_allclose(np.sort(seen.ravel()), np.sort(expected.ravel()), rtol=1e-5, atol=1e-5)


def test_as_gymnasiums_wrappers_leave_action_spaces():
    torch.manual_seed(0)
    inner = spaces.Box(-0.3, 0.3, (1,), np.float32)
    for wrapper, bound in (
        (wrappers.ClipAction, None),  # leaves an unbounded space: the policy's numbers are actions
        (partial(wrappers.RescaleAction, min_action=np.float32(-5), max_action=np.float32(5)), 5.0),
    ):
        environment, made = lines(lambda wrapper=wrapper: wrapper(Line(inner)))
        meta = learner(environment, rl.GaussianPolicy(1, 1, [4]))
        drawn = meta.episodes(tasks_of(environment), steps=0)[0].actions.double().numpy()
        taken = np.clip(drawn, -0.3, 0.3) if bound is None else 0.3 * np.clip(drawn, -1, 1)
        seen = actions_seen([line.unwrapped for line in made])
        np.testing.assert_allclose(np.sort(seen.ravel()), np.sort(taken.ravel()), atol=1e-6)


def test_action_sizes_that_do_not_fit_are_refused_with_both_numbers():
    cheetah = HalfCheetahDirection(4)
    for policy, words in (
        (
            rl.GaussianPolicy(17, 1),
            r"actions of 6 numbers .* returned 1. Build the policy with GaussianPolicy\(observations, actions=6",
        ),
        (rl.GaussianPolicy(17, 7), "actions of 6 numbers .* returned 7"),
        (rl.CategoricalPolicy(17, 6), "actions of 6 numbers .* integers of shape"),
    ):
        with pytest.raises(ValueError, match=words):
            learner(cheetah, policy).score(tasks_of(cheetah))
    assert not cheetah._elapsed.any(), "before the first step"
    for space, policy, words in (
        (
            spaces.Discrete(3),
            rl.CategoricalPolicy(1, 4),
            r"among 3 actions .* among 4. Build the policy with CategoricalPolicy\(",
        ),
        (spaces.Discrete(3), rl.GaussianPolicy(1, 3), "among 3 actions .* floating-point numbers of shape"),
        (
            spaces.MultiDiscrete([3, 2]),
            rl.CategoricalPolicy(1, 5),
            r"among 3 and 2 actions .* among 5. Build the policy with Multi",
        ),
    ):
        environment, made = lines(partial(Line, space))
        with pytest.raises(ValueError, match=words):
            learner(environment, policy).meta_loss(tasks_of(environment))
        assert not len(actions_seen(made))


def test_spaces_that_cannot_be_are_refused_at_once():
    whole = spaces.Box(0, 9, (2,), np.int64)
    with pytest.raises(TypeError, match="action space must be Discrete, .*int64"):
        learner(lines(partial(Line, whole))[0], rl.GaussianPolicy(1, 2))
    with pytest.raises(TypeError, match="Discrete, MultiDiscrete or MultiBinary"):
        lines(partial(Line, spaces.Dict({"a": spaces.Discrete(2)})))
    navigation = PointNavigation(2)
    navigation.single_observation_space = spaces.Dict({"x": spaces.Box(-1, 1, (2,))})
    with pytest.raises(TypeError, match="observations of PointNavigation must be a Box; got Dict"):
        rl.Rollouts(navigation)

"""Policies that give torch.distributions, what adapt returns acting by itself, and learners that are pickled."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from lines import Line, learner, lines, sample_goals, set_goal, tasks_of
from torch import nn

import fewstep as fs
from fewstep import rl
from fewstep.rl.environments import GymnasiumTasks, HalfCheetahDirection, PointNavigation


class Theirs(nn.Module):
    """A policy that gives a ``torch.distributions`` object, made from the outputs of a linear layer."""

    def __init__(self, make, numbers=2):
        super().__init__()
        self.net = nn.Linear(2, numbers)
        self.make = make

    def forward(self, x):
        return self.make(self.net(x))


class Ours(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 2)

    def forward(self, x):
        mean = self.net(x)
        return rl.Gaussian(mean, torch.full_like(mean, np.log(0.5)))


def normal(outputs):
    return torch.distributions.Normal(outputs, 0.5)


def independent(outputs):
    return torch.distributions.Independent(torch.distributions.Normal(outputs, 0.5), 1)


def categorical(outputs):
    return torch.distributions.Categorical(logits=outputs)


@pytest.mark.parametrize("make", [normal, independent])
@pytest.mark.parametrize(
    "losses", [{}, {"inner_loss": rl.dice}, {"inner_loss": rl.surrogate, "loss": rl.clipped_surrogate(0.3)}]
)
def test_normal_policies_are_gaussian_ones(make, losses):
    environment = PointNavigation(6, horizon=10)
    theirs, ours = learner(environment, Theirs(make), **losses), learner(environment, Ours(), **losses)
    ours.load_state_dict(theirs.state_dict())
    tasks = tasks_of(environment)
    for meta in (theirs, ours):
        meta.meta_loss(tasks).backward()
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-7)
    for optimizer in (rl.TRPO, rl.ProMP):
        optimizer(theirs).meta_step(tasks)
        optimizer(ours).meta_step(tasks)
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert isinstance(theirs.adapt(tasks[0].support)(torch.zeros(1, 2)), torch.distributions.Distribution)


@pytest.mark.usefixtures("double")
def test_the_fisher_product_of_a_policy_with_a_fixed_deviation_is_the_hessian_of_the_divergence():
    meta = learner(PointNavigation(6, horizon=6), Theirs(normal).double())
    episodes = meta.collect(tasks_of(meta.rollouts.environment).to(torch.float64))
    parameters = list(meta.parameters())
    vector = [torch.randn_like(value) for value in parameters]
    found = rl.FisherProduct(meta, episodes)(vector)
    old = rl.Gaussian(*(leaf.detach() for leaf in vars(meta.distributions(episodes)).values()))
    divergence = rl.mean_kl(episodes, old, meta.distributions(episodes))
    gradient = torch.autograd.grad(divergence, parameters, create_graph=True)
    along = sum((g * v).sum() for g, v in zip(gradient, vector, strict=True))
    for ours, theirs in zip(found, torch.autograd.grad(along, parameters), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_categorical_policies():
    logits = torch.randn(4, 3)
    found = rl.as_distribution(categorical(logits))
    actions = torch.tensor([0, 2, 1, 1])
    torch.testing.assert_close(found.log_prob(actions), categorical(logits).log_prob(actions))
    torch.testing.assert_close(found.mode(), logits.argmax(-1))


def test_other_distributions_are_refused_by_name():
    def beta(outputs):
        return torch.distributions.Beta(outputs.exp(), outputs.exp())

    def tanh_normal(outputs):
        return torch.distributions.TransformedDistribution(normal(outputs), torch.distributions.TanhTransform())

    environment = PointNavigation(6, horizon=10)
    for make, name in ((beta, "Beta"), (tanh_normal, "TransformedDistribution")):
        with pytest.raises(TypeError, match=rf"torch.distributions.{name}; only Normal"):
            learner(environment, Theirs(make)).meta_loss(tasks_of(environment))

    class NoPytree:
        sample = log_prob = lambda self: None

    with pytest.raises(TypeError, match="must return a pytree of tensors; got NoPytree"):
        learner(environment, Theirs(lambda outputs: NoPytree())).meta_loss(tasks_of(environment))


def test_checks_of_torch_distributions_stay_as_they_were():
    environment, before = PointNavigation(6, horizon=3), torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(True)  # a compiler may have turned them off
    try:
        learner(environment, Theirs(normal)).score(tasks_of(environment))
        with pytest.raises(ValueError, match="scale"):
            torch.distributions.Normal(torch.zeros(1), -torch.ones(1))
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


def test_a_log_prob_that_is_not_summed_is_refused():
    class Unsummed(rl.Gaussian):
        def log_prob(self, actions):
            return super().log_prob(actions)[..., None].expand_as(actions)

    environment = PointNavigation(6, horizon=3)
    meta = rl.MetaPolicy(
        Theirs(lambda o: Unsummed(o, torch.zeros_like(o))), rl.Rollouts(environment, 3), rule=fs.GradientDescent(0.1)
    )
    tasks = tasks_of(environment)
    with pytest.raises(ValueError, match=r"one number per action, shape \[2, 3\]; got shape \[2, 3, 2\]"):
        meta.score(tasks)


# Acting


def test_what_adapt_returns_acts_in_the_units_of_the_environment():
    environment = PointNavigation(6, horizon=10)
    policy = learner(environment, rl.GaussianPolicy(2, 2)).adapt(tasks_of(environment)[0].support)
    seen = np.array([[0.3, -0.2], [0.1, 0.0]], np.float32)
    mean = policy(torch.as_tensor(seen)).mean.detach().numpy()
    np.testing.assert_allclose(policy.act(seen, deterministic=True), 0.1 * np.clip(mean, -1, 1), rtol=1e-5)
    np.testing.assert_array_equal(policy.act(seen[0], deterministic=True), policy.act(seen, deterministic=True)[0])
    np.testing.assert_array_equal(policy.act(torch.tensor(seen[1]), True), policy.act(seen, True)[1])
    drawn = [policy.act(seen, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    many = policy.act(np.zeros((4000, 2), np.float32))
    distribution = policy(torch.zeros(1, 2))
    unclipped = torch.distributions.Normal(distribution.mean[0], distribution.log_std[0].exp())
    inside = (unclipped.cdf(torch.ones(2)) - unclipped.cdf(-torch.ones(2))).detach().numpy()
    np.testing.assert_allclose((np.abs(many) < 0.0999).mean(0), inside, atol=0.03)
    with pytest.raises(ValueError, match=r"one observation of shape \[2\], or several, \[n, 2\]; got shape \[3\]"):
        policy.act(np.zeros(3))


def test_it_plays_the_episodes_that_score_measures():
    """The policy's act in a plain Gymnasium environment against the learner's own sampling, both without noise."""
    environment, _ = lines(num_envs=4)
    meta = learner(environment, rl.GaussianPolicy(1, 1, [4], std=1e-6))
    task = tasks_of(environment, 1)
    policy, line = meta.adapt(task[0].support, 0), Line()
    line.goal = task.support.numbers.item()
    seen, _ = line.reset()
    total = 0.0
    for _ in range(10):
        seen, reward, *_ = line.step(policy.act(seen, deterministic=True))
        total += reward
    assert total == pytest.approx(meta.score(task, steps=0).item(), abs=1e-4)


def test_discrete_actions_are_counted_from_the_start():
    from gymnasium.spaces import Discrete, MultiDiscrete

    for space, policy in (
        (Discrete(3, start=-1), rl.CategoricalPolicy(1, 3, [4])),
        (MultiDiscrete([3, 2], start=[1, 4]), rl.MultiCategoricalPolicy(1, [3, 2], [4])),
    ):
        environment, _ = lines(lambda space=space: Line(space))
        adapted = learner(environment, policy).adapt(tasks_of(environment)[0].support)
        most = adapted(torch.zeros(1, 1)).logits[0].split(getattr(policy, "choices", 3))
        start = np.array(space.start).reshape(-1)
        action = adapted.act(np.zeros(1), deterministic=True)
        assert np.reshape(action, -1).tolist() == [int(m.argmax()) + s for m, s in zip(most, start, strict=True)]
        assert all(space.contains(one) for one in adapted.act(np.zeros((50, 1))))


def test_an_adapted_policy_is_saved_and_loaded_without_the_learner():
    cheetah = HalfCheetahDirection(4, horizon=4)
    policy = learner(cheetah, rl.GaussianPolicy(17, 6, [4])).adapt(tasks_of(cheetah)[0].support)
    file = io.BytesIO()
    torch.save(policy, file)
    assert len(file.getvalue()) < 20_000, "neither learner nor environment is in it"
    file.seek(0)
    again, seen = torch.load(file, weights_only=False), np.random.default_rng(0).normal(size=(5, 17))
    for other in (again, copy.deepcopy(policy)):
        assert type(other) is rl.GaussianPolicy
        assert other.act.policy is other
        np.testing.assert_array_equal(other.act(seen, True), policy.act(seen, True))
    fresh = rl.GaussianPolicy(17, 6, [4])
    fresh.load_state_dict(policy.state_dict())
    np.testing.assert_array_equal(rl.Act(fresh, cheetah)(seen, True), policy.act(seen, True))
    learner(cheetah, policy)  # without a warning: its act is ours


def test_an_act_of_their_own_stays_and_is_warned_of():
    class Theirs(Ours):
        def __init__(self):
            super().__init__()
            self.act = nn.Tanh()

    environment = PointNavigation(6, horizon=4)
    with pytest.warns(UserWarning, match=r"Theirs already defines act.* fewstep.rl.Act"):
        meta = learner(environment, Theirs())
    policy = meta.adapt(tasks_of(environment)[0].support)
    assert isinstance(policy.act, nn.Tanh)
    assert np.abs(rl.Act(policy, environment)([0.0, 0.0])).max() <= 0.1


# Pickling


@pytest.mark.parametrize(
    ("make", "policy"),
    [
        (lambda: PointNavigation(8, horizon=6), lambda: rl.GaussianPolicy(2, 2, [4])),
        (lambda: HalfCheetahDirection(8, horizon=6, rewards="paper"), lambda: rl.GaussianPolicy(17, 6, [4])),
        (lambda: GymnasiumTasks(lambda: Line(), sample_goals, set_goal, 8), lambda: rl.GaussianPolicy(1, 1, [4])),
    ],
)
def test_learners_are_pickled_with_their_environment(make, policy):
    environment = make()
    meta = learner(environment, policy(), horizon=6)
    expected = meta.score(tasks_of(environment))  # leaves the copies in the middle of things
    for again in (pickle.loads(pickle.dumps(meta)), copy.deepcopy(meta)):
        assert again.rollouts.environment is not environment
        assert torch.equal(again.score(tasks_of(again.rollouts.environment)), expected)
    drawn = pickle.loads(pickle.dumps(rl.EnvironmentTasks(environment, episodes=3))).sample(2)
    assert meta.collect(drawn).query.rewards.shape[:2] == (2, 3)


def test_tasks_stay_what_they_are_when_they_are_moved_and_indexed():
    environment = PointNavigation(4)
    tasks = rl.EnvironmentTasks(environment, episodes=3, horizon=5).sample(4)
    for part in (tasks[1:3], tasks[0], tasks.to(torch.float64)):
        assert part.support.environment is environment
        assert (part.support.episodes, part.support.horizon) == (3, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner(environment, rl.GaussianPolicy(2, 2)).score(tasks)

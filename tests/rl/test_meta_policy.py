"""The meta-learner of policies: it is MAML on the episodes that it collects, whatever the rule and adjoint."""

import numpy as np
import pytest
import torch
import worlds
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

import fewstep as fs
from fewstep import rl

pytestmark = pytest.mark.usefixtures("double")


def act(learner, params, episodes):
    return functional_call(learner.model, params, (episodes.observations,))


def by_hand(learner, task):
    """One task's loss, its inner loop written out; as far as it goes, as authors of papers write it."""
    params = dict(learner.model.named_parameters())
    for k in range(learner.steps):
        episodes = tree_map(lambda tensor, k=k: tensor[k], task.support)
        loss = -episodes.mean(act(learner, params, episodes).log_prob(episodes.actions) * episodes.advantages)
        gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        params = {name: value - 0.1 * g for (name, value), g in zip(params.items(), gradients, strict=True)}
    query = task.query
    ratio = (act(learner, params, query).log_prob(query.actions) - query.log_probs).exp()
    return -query.mean(ratio * query.advantages)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_meta_gradient_is_that_of_an_inner_loop_written_out(steps):
    learner = worlds.learner(steps)
    episodes = learner.collect(worlds.tasks(learner))
    expected = sum(by_hand(learner, episodes[i]) for i in range(4)) / 4
    found = learner.loss_on(episodes)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, learner.parameters()), torch.autograd.grad(expected, learner.parameters())
    )


def test_the_meta_gradient_by_finite_differences():
    learner = worlds.learner(steps=2, policy=rl.GaussianPolicy(2, 2, [4], activation=torch.nn.Tanh))
    episodes = learner.collect(worlds.tasks(learner))
    names = [name for name, _ in learner.named_parameters()]

    def loss(*values):
        return functional_call(learner, dict(zip(names, values, strict=True)), (episodes,))

    learner.loss_on(episodes)  # looks at the episodes once
    torch.autograd.gradcheck(loss, tuple(p.detach().requires_grad_() for p in learner.parameters()))


@pytest.mark.parametrize("steps", [1, 2])
def test_recomputed_is_unrolled(steps):
    learner, other = worlds.learner(steps), worlds.learner(steps, adjoint=fs.Recomputed())
    other.load_state_dict(learner.state_dict())
    tasks = worlds.tasks(learner)
    for x in (learner, other):
        x.meta_loss(tasks).backward()
    for ours, theirs in zip(learner.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_chunks_change_nothing():
    learner, other = worlds.learner(), worlds.learner(chunk=3)
    other.load_state_dict(learner.state_dict())
    tasks = worlds.tasks(learner)
    for x in (learner, other):
        x.meta_gradient(tasks)
    for ours, theirs in zip(learner.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_every_step_explores_anew_with_the_policy_adapted_so_far():
    learner = worlds.learner(steps=2)
    episodes = learner.collect(worlds.tasks(learner))
    assert episodes.support.rewards.shape == (4, 2, 3, 6)
    assert episodes.query.rewards.shape == (4, 3, 6)
    for i in range(4):
        task, params = episodes[i], learner._path(episodes[i].support, 2)
        parts = [tree_map(lambda tensor, k=k: tensor[k], task.support) for k in (0, 1)]
        for own, part in zip(params, [*parts, task.query], strict=True):
            acted = functional_call(learner.model, own, (part.observations,)).log_prob(part.actions)
            torch.testing.assert_close(acted * part.mask, part.log_probs)


@pytest.mark.parametrize(
    ("choices", "moved"),
    [
        ({"adapts": "network.2.*"}, {"network.2.weight", "network.2.bias"}),
        ({"policy": rl.GaussianPolicy(2, 2, [4], context=2), "adapts": "context"}, {"context"}),
    ],
)
def test_only_what_is_named_adapts(choices, moved):
    learner = worlds.learner(**choices)
    before = dict(learner.model.named_parameters())
    adapted = learner.adapt(worlds.tasks(learner)[0].support, steps=2)
    assert type(adapted) is rl.GaussianPolicy
    assert {name for name, value in adapted.named_parameters() if not torch.equal(value, before[name])} == moved
    learner.meta_loss(worlds.tasks(learner)).backward()


def test_learned_rates_and_a_learned_loss_are_learned():
    class Learned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, policy, episodes):
            return self.weight * rl.policy_gradient(policy, episodes)

    policy = rl.GaussianPolicy(2, 2, [4])
    rule = fs.LearnedRates(policy.named_parameters(), 0.1, per="parameter")
    learner = worlds.learner(policy=policy, rule=rule, inner_loss=Learned())
    learner.meta_loss(worlds.tasks(learner)).backward()
    assert all(value.grad is not None and value.grad.any() for value in learner.parameters())


def test_score_is_the_return_after_every_update_and_adapt_gives_the_policy():
    learner = worlds.learner()
    tasks = worlds.tasks(learner)
    scores = learner.score(tasks, steps=3)
    assert scores.shape == (4, 4)
    assert torch.equal(scores, learner.score(tasks, steps=3))
    for steps in (0, 1, 3):
        policy = learner.adapt(tasks[2].support, steps)
        own = {name: value[None] for name, value in policy.named_parameters()}
        again = learner.rollouts(policy, own, tasks[2:3].support, steps)
        torch.testing.assert_close(again.returns.mean(), scores[2, steps])


@pytest.mark.parametrize(
    "metric",
    [
        lambda policy, episodes: episodes.returns.mean(),
        lambda policy, episodes: episodes.returns.mean().item(),
        lambda policy, episodes: episodes.returns.numpy().mean(),
        lambda policy, episodes: np.asarray(episodes.returns.numpy().mean()),
    ],
    ids=["tensor", "Python number", "NumPy number", "NumPy array without axes"],
)
def test_metrics_of_tensors_and_of_numbers_give_the_same_scores(metric):
    learner = worlds.learner()
    tasks = worlds.tasks(learner)
    torch.testing.assert_close(learner.score(tasks, metric, steps=2), learner.score(tasks, steps=2))


def test_a_metric_sees_the_adapted_policy_and_its_episodes():
    learner = worlds.learner()
    tasks = worlds.tasks(learner)

    def std_of_the_first_action(policy, episodes):
        assert episodes.rewards.shape == (3, 6)
        return float(policy(episodes.observations).log_std[0, 0, 0].exp())

    scores = learner.score(tasks, std_of_the_first_action, steps=1)
    adapted = [learner.adapt(tasks[i].support, 1).log_std[0].exp().item() for i in range(4)]
    torch.testing.assert_close(scores[:, 0], torch.ones(4))
    torch.testing.assert_close(scores[:, 1], torch.tensor(adapted))


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (lambda policy, episodes: episodes.returns, r"a real scalar tensor or a number; got Tensor of shape \(3,\)"),
        (lambda policy, episodes: episodes.returns.numpy(), r"number; got ndarray of shape \(3,\)"),
        (lambda policy, episodes: None, "a real scalar tensor or a number; got NoneType"),
        ("return", "metric must be a function"),
        (torch.nn.functional.mse_loss, "is a function of \\(prediction, target\\)"),
    ],
)
def test_metrics_that_do_not_return_a_scalar_are_refused(metric, words):
    learner = worlds.learner()
    with pytest.raises(TypeError, match=words):
        learner.score(worlds.tasks(learner), metric)


def test_a_negative_number_of_updates_is_refused():
    learner = worlds.learner()
    with pytest.raises(ValueError, match="steps must be a whole number, 0 or more; got -1"):
        learner.score(worlds.tasks(learner), steps=-1)


def test_the_second_test_step_is_half_as_long():
    halved, whole = worlds.learner(), worlds.learner(test_scales=(1.0,))
    whole.load_state_dict(halved.state_dict())
    support = worlds.tasks(halved)[0].support
    paths = [[x.adapt(support, k).log_std.detach() for k in range(3)] for x in (halved, whole)]
    torch.testing.assert_close(paths[0][1], paths[1][1])
    torch.testing.assert_close(paths[0][2] - paths[0][1], 0.5 * (paths[1][2] - paths[1][1]))


def test_without_inner_steps_it_is_pretraining():
    learner = worlds.learner(steps=0)
    learner.meta_loss(worlds.tasks(learner)).backward()
    assert learner.score(worlds.tasks(learner), steps=2).shape == (4, 3)


def test_evaluate_measures_returns_on_the_same_tasks():
    learner = worlds.learner()
    source = rl.EnvironmentTasks(learner.rollouts.environment)
    found, again = (fs.evaluate(learner.float(), source, num_tasks=6, steps=1, meta_batch=n) for n in (6, 6))
    assert found.metric == "mean_return"
    assert torch.equal(found.values, again.values)
    assert (found.values < 0).all()


def test_evaluate_takes_a_metric_that_returns_numbers():
    def longest(policy, episodes):
        return int(episodes.lengths.max())

    learner = worlds.learner()
    source = rl.EnvironmentTasks(learner.rollouts.environment)
    found = fs.evaluate(learner.float(), source, num_tasks=4, steps=1, metric=longest)
    assert found.metric == "longest"
    assert torch.equal(found.values, torch.full((4, 2), 6.0))


def test_collecting_writes_nothing_and_draws_no_global_numbers():
    learner = worlds.learner()
    state, before = torch.get_rng_state(), [value.clone() for value in learner.parameters()]
    first, second = (tree_leaves(learner.collect(worlds.tasks(learner))) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True))


def test_says_what_it_takes():
    learner = worlds.learner()
    with pytest.raises(TypeError, match="tasks from fewstep.rl.EnvironmentTasks"):
        learner.meta_loss(fs.tasks.Sinusoids().sample(4))
    for function in (learner.meta_loss, learner.score, learner.episodes):
        with pytest.raises(TypeError, match="got EnvironmentTask"):
            function(worlds.tasks(learner).support)
    with pytest.raises(TypeError, match="Pass task.support"):
        learner.adapt(worlds.tasks(learner)[0])
    with pytest.raises(ValueError, match="test_scales"):
        worlds.learner(test_scales=())

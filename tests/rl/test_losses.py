"""Losses of policies: values by hand, and derivatives against exact expectations over all episodes of a small world."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import worlds
from torch.utils._pytree import tree_map

from fewstep import rl

pytestmark = pytest.mark.usefixtures("double")


class Table(torch.nn.Module):
    """A policy with logits of its own for each of three observations, which are one-hot; uniform at first."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(3, 2))

    def forward(self, observations):
        return rl.Categorical(observations @ self.logits)


def all_episodes():
    """Every episode of a world of two steps and two actions once: under the uniform policy, the exact expectation.

    The second observation is 1 or 2, by the first action. Rewards depend on both actions.
    """
    actions = torch.tensor(list(product((0, 1), repeat=2)))
    observations = torch.nn.functional.one_hot(torch.stack([torch.zeros(4, dtype=torch.long), 1 + actions[:, 0]], 1), 3)
    rewards = torch.stack([actions[:, 0] * 0.5, (actions[:, 0] - 2 * actions[:, 1]) * 1.0], 1)
    mask = torch.ones(4, 2)
    log_probs = torch.full((4, 2), 0.5).log()
    advantages = rl.discounted_returns(rewards, mask, 1.0) - torch.tensor([0.3, -0.2])  # any baseline will do
    return rl.Trajectories(observations.double(), actions, rewards, mask, advantages, log_probs, torch.tensor(0.7))


def expected_return(logits):
    """Σ over episodes of their probability times their return, per step as the losses are."""
    episodes = all_episodes()
    log_probs = rl.Categorical(episodes.observations @ logits).log_prob(episodes.actions)
    return -(log_probs.sum(1).exp() * episodes.rewards.sum(1)).sum() / 2


def as_function(loss):
    policy = Table()
    return lambda logits: loss(lambda o: torch.func.functional_call(policy, {"logits": logits}, (o,)), all_episodes())


@pytest.mark.parametrize("loss", [rl.policy_gradient, rl.surrogate, rl.clipped_surrogate(), rl.dice])
def test_the_gradient_is_that_of_the_expected_return(loss):
    found = torch.func.grad(as_function(loss))(torch.zeros(3, 2))
    torch.testing.assert_close(found, torch.func.grad(expected_return)(torch.zeros(3, 2)))


def test_only_dice_has_the_right_second_derivative():
    exact = torch.func.hessian(expected_return)(torch.zeros(3, 2))
    hessian = {loss: torch.func.hessian(as_function(loss))(torch.zeros(3, 2)) for loss in (rl.dice, rl.policy_gradient)}
    torch.testing.assert_close(hessian[rl.dice], exact)
    assert (hessian[rl.policy_gradient] - exact).abs().max() > 0.05


def test_values_by_hand():
    episodes, ratio = all_episodes(), torch.tensor([[0.5, 2.0], [1.0, 1.0], [1.1, 0.7], [1.5, 1.0]])
    episodes = replace(episodes, log_probs=torch.full((4, 2), 0.5).log() - ratio.log())
    a, policy = episodes.advantages, Table()
    assert rl.policy_gradient(policy, episodes).item() == pytest.approx((a.mean() * torch.tensor(2.0).log()).item())
    assert rl.surrogate(policy, episodes).item() == pytest.approx(-(ratio * a).mean().item())
    clipped = torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
    assert rl.clipped_surrogate(0.2)(policy, episodes).item() == pytest.approx(-clipped.mean().item())
    assert rl.mean_return(policy, episodes).item() == pytest.approx(episodes.rewards.sum(1).mean().item())


@pytest.mark.parametrize("loss", [rl.policy_gradient, rl.surrogate, rl.clipped_surrogate(), rl.dice, rl.mean_return])
def test_what_is_masked_does_not_count(loss):
    episodes = all_episodes()
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    policy = Table()
    with torch.no_grad():
        policy.logits.copy_(torch.randn(3, 2))

    def value_and_gradient(trajectories):
        value = loss(policy, replace(trajectories, mask=mask))
        gradient = torch.autograd.grad(value, policy.logits)[0] if value.requires_grad else torch.zeros(())
        return value.detach(), gradient

    def changed(tensor):
        where = mask.view(*mask.shape, *[1] * (tensor.ndim - 2)) == 0
        return torch.where(where, 1 - tensor, tensor)

    other = replace(
        episodes,
        actions=changed(episodes.actions),
        rewards=changed(episodes.rewards),
        advantages=changed(episodes.advantages),
        log_probs=changed(episodes.log_probs),
    )
    torch.testing.assert_close(value_and_gradient(episodes), value_and_gradient(other))


def test_e_maml_gives_credit_to_what_was_explored():
    plain, corrected = (worlds.learner(steps=2, objective=o) for o in (rl.meta_policy.query_loss, rl.e_maml))
    corrected.load_state_dict(plain.state_dict())
    episodes = plain.collect(worlds.tasks(plain))
    difference = [
        b - a
        for a, b in zip(
            *([*torch.autograd.grad(x.loss_on(episodes), x.parameters())] for x in (plain, corrected)), strict=True
        )
    ]

    def log_likelihood():
        total = 0.0
        for i in range(4):
            task = episodes[i]
            for step, params in enumerate(plain._path(task.support, 2)[:-1]):
                explored = tree_map(lambda tensor, k=step: tensor[k], task.support)
                acting = torch.func.functional_call(plain.model, params, (explored.observations,))
                total = total - task.query.credit * explored.mean(acting.log_prob(explored.actions)) / 4
        return total

    expected = torch.autograd.grad(log_likelihood(), plain.parameters())
    torch.testing.assert_close(difference, list(expected))

"""Distributions against PyTorch's, and their Fisher matrices against the Hessian of the divergence."""

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from fewstep.rl import Categorical, CategoricalPolicy, Gaussian, GaussianPolicy, MultiCategorical

pytestmark = pytest.mark.usefixtures("double")


def gaussian():
    return Gaussian(torch.randn(5, 3), 0.3 * torch.randn(5, 3))


def categorical():
    return Categorical(torch.randn(5, 4))


def reference(distribution):
    if isinstance(distribution, Categorical):
        return torch.distributions.Categorical(logits=distribution.logits)
    return torch.distributions.Independent(torch.distributions.Normal(distribution.mean, distribution.log_std.exp()), 1)


@pytest.mark.parametrize("make", [gaussian, categorical])
def test_log_prob_and_kl_are_those_of_torch(make):
    ours, other = make(), make()
    actions = reference(ours).sample()
    torch.testing.assert_close(ours.log_prob(actions), reference(ours).log_prob(actions))
    torch.testing.assert_close(ours.kl(other), torch.distributions.kl_divergence(reference(ours), reference(other)))


def multi_categorical():
    return MultiCategorical(torch.randn(5, 6), (2, 4))


@pytest.mark.parametrize("make", [gaussian, categorical, multi_categorical])
def test_fisher_is_the_hessian_of_the_divergence(make):
    ours = make()
    leaves, structure = tree_flatten(ours)
    tangent = [torch.randn_like(leaf) for leaf in leaves]

    def divergence(*new):
        return ours.kl(tree_unflatten(new, structure)).sum()

    gradient = torch.func.grad(divergence, argnums=tuple(range(len(leaves))))
    expected = torch.func.jvp(gradient, tuple(leaves), tuple(tangent))[1]
    found = tree_flatten(ours.fisher(tree_unflatten(tangent, structure)))[0]
    torch.testing.assert_close(found, list(expected))


def test_several_choices_are_independent_ones():
    ours, other = (MultiCategorical(torch.randn(5, 6), (2, 4)) for _ in range(2))
    parts, others = ([reference(Categorical(part)) for part in one.logits.split([2, 4], -1)] for one in (ours, other))
    actions = torch.stack([part.sample() for part in parts], -1)
    log_probs = [part.log_prob(actions[..., i]) for i, part in enumerate(parts)]
    torch.testing.assert_close(ours.log_prob(actions), sum(log_probs))
    divergences = [torch.distributions.kl_divergence(p, q) for p, q in zip(parts, others, strict=True)]
    torch.testing.assert_close(ours.kl(other), sum(divergences))
    assert torch.equal(ours.mode(), torch.stack([ours.logits[:, :2].argmax(-1), ours.logits[:, 2:].argmax(-1)], -1))
    many = MultiCategorical(ours.logits[:1].expand(20_000, -1), (2, 4)).sample(torch.randn(20_000, 2))
    for i, part in enumerate(parts):
        frequencies = many[:, i].bincount(minlength=part.logits.shape[-1]) / 20_000
        torch.testing.assert_close(frequencies, part.probs[0], atol=0.02, rtol=0)


def test_samples_are_distributed_as_they_should():
    noise = torch.randn(20_000, 1)
    logits = torch.tensor([0.0, 1.0, -1.0])
    frequencies = Categorical(logits.expand(20_000, -1)).sample(noise).bincount(minlength=3) / 20_000
    torch.testing.assert_close(frequencies, logits.softmax(0), atol=0.02, rtol=0)
    drawn = Gaussian(torch.full((20_000, 1), 2.0), torch.full((20_000, 1), -1.0)).sample(noise)
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.02)
    assert drawn.std().log().item() == pytest.approx(-1.0, abs=0.02)


def test_policies_have_the_papers_form():
    policy = GaussianPolicy(2, 2)
    assert [tuple(p.shape) for p in policy.parameters()] == [(2,), (100, 2), (100,), (100, 100), (100,), (2, 100), (2,)]
    assert torch.equal(policy(torch.randn(3, 7, 2)).log_std, torch.zeros(3, 7, 2))
    with torch.no_grad():
        policy.log_std.fill_(-100.0)
    assert policy(torch.zeros(2)).log_std.exp().tolist() == pytest.approx([1e-6, 1e-6])
    assert CategoricalPolicy(2, 5)(torch.zeros(3, 2)).logits.shape == (3, 5)
    with pytest.raises(ValueError, match="std must be at least min_std"):
        GaussianPolicy(2, 2, std=0.0)


def test_a_context_is_seen_beside_the_observation():
    policy = GaussianPolicy(2, 2, [8], context=3)
    before = policy(torch.zeros(5, 2)).mean
    with torch.no_grad():
        policy.context.fill_(1.0)
    assert not torch.equal(before, policy(torch.zeros(5, 2)).mean)

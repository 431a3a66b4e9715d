"""Gradient transforms: against PyTorch's clipping, against finite differences, and in chains."""

import copy
import pickle

import pytest
import torch
from gradients.checks import SmoothNetwork, assert_matches_differences, meta_gradient, regression_tasks
from torch import nn

import fewstep as fs

pytestmark = pytest.mark.usefixtures("double")


def gradients():
    return {"a": torch.randn(2, 3), "b": torch.randn(()), "c": torch.randn(4)}


def by_torch(clip, grads):
    leaves = [torch.zeros_like(value).requires_grad_() for value in grads.values()]
    for leaf, value in zip(leaves, grads.values(), strict=True):
        leaf.grad = value.clone()
    clip(leaves)
    return dict(zip(grads, [leaf.grad for leaf in leaves], strict=True))


@pytest.mark.parametrize("limit", [0.3, 1.0, 50.0])
def test_clipping_equals_torchs(limit):
    grads = gradients()
    for ours, theirs in (
        (fs.clip_by_norm, lambda leaves: torch.nn.utils.clip_grad_norm_(leaves, limit)),
        (fs.clip_by_value, lambda leaves: torch.nn.utils.clip_grad_value_(leaves, limit)),
    ):
        expected = by_torch(theirs, grads)
        for kind in (limit, torch.tensor(limit), lambda step: limit):
            transform = ours(kind)
            came, _ = transform.transform(grads, grads, transform.init(grads), 0)
            torch.testing.assert_close(came, expected, rtol=0, atol=1e-14)


def test_decay_and_scale():
    grads, params = gradients(), gradients()
    rule = fs.chain(fs.decay_weights(0.3), fs.scale_by(lambda step: [1.0, 0.5][step]), fs.SGD(0.2))
    moved, state = rule.update(params, grads, rule.init(params), 0, torch.tensor(0.0))
    moved, state = rule.update(moved, grads, state, 1, torch.tensor(0.0))
    for name, value in params.items():
        first = value - 0.2 * (grads[name] + 0.3 * value)
        torch.testing.assert_close(moved[name], first - 0.1 * (grads[name] + 0.3 * first), rtol=0, atol=1e-14)


def test_the_order_of_a_chain_matters():
    params, grads = {"w": torch.tensor(10.0)}, {"w": torch.tensor(10.0)}

    def moved(*parts):
        rule = fs.chain(*parts, fs.SGD(1.0))
        return rule.update(params, grads, rule.init(params), 0, torch.tensor(0.0))[0]["w"].item()

    assert moved(fs.clip_by_value(1.0), fs.scale_by(3.0)) == 7.0
    assert moved(fs.scale_by(3.0), fs.clip_by_value(1.0)) == 9.0


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed()], ids=["unrolled", "recomputed"])
@pytest.mark.parametrize("limit", [0.2, 100.0], ids=["clips", "does not clip"])
def test_clipping_by_norm_is_differentiated(limit, adjoint):
    learner = fs.MetaLearner(
        SmoothNetwork(), fs.mse, rule=fs.chain(fs.clip_by_norm(limit), fs.SGD(0.3)), steps=2, adjoint=adjoint
    )
    assert_matches_differences(learner, regression_tasks())


def test_clipping_by_norm_at_a_gradient_of_zero_is_the_identity():
    transform, zeros = fs.clip_by_norm(1.0), {"a": torch.zeros(2), "b": torch.zeros(())}
    tangents = {"a": torch.randn(2), "b": torch.randn(())}
    function = lambda grads: transform.transform(grads, grads, None, 0)[0]  # noqa: E731
    came, moved = torch.func.jvp(function, (zeros,), (tangents,))
    torch.testing.assert_close(came, zeros)
    torch.testing.assert_close(moved, tangents)
    second = torch.func.jacrev(torch.func.jacrev(function))(zeros)
    assert all(torch.isfinite(value).all() for value in torch.utils._pytree.tree_leaves(second))


class Heavy:
    """Momentum as a custom transform with state that is not a module."""

    def init(self, params):
        return {name: torch.zeros_like(value) for name, value in params.items()}

    def transform(self, grads, params, state, step):
        state = {name: 0.7 * state[name] + grads[name] for name in grads}
        return state, state


@pytest.mark.parametrize("vectorize", [True, False])
def test_a_custom_transform_with_state(vectorize):
    tasks, model = regression_tasks(), SmoothNetwork()
    own = fs.MetaLearner(model, fs.mse, rule=fs.chain(Heavy(), fs.SGD(0.2)), steps=3, vectorize=vectorize)
    built_in = fs.MetaLearner(model, fs.mse, rule=fs.SGD(0.2, momentum=0.7), steps=3, vectorize=vectorize)
    expected = meta_gradient(built_in, tasks)
    for name, value in meta_gradient(own, tasks).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-13)


def test_a_learned_transform_is_registered():
    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(1.3))

        def init(self, params):
            return None

        def transform(self, grads, params, state, step):
            return {name: self.gain * value for name, value in grads.items()}, state

    learner = fs.MetaLearner(SmoothNetwork(), fs.mse, rule=fs.chain(Gain(), fs.Adam(0.1, eps=1e-1)), steps=2)
    assert "rule.0.gain" in dict(learner.named_parameters())
    assert_matches_differences(learner, regression_tasks())


def test_a_chain_is_copied_and_pickled():
    rule = fs.chain(fs.clip_by_norm(nn.Parameter(torch.tensor(0.5))), fs.Adam(fs.LearnedRate(0.1, positive=True)))
    params = {"w": torch.randn(3)}
    for other in (copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))):
        expected = rule.update(params, params, rule.init(params), 0, torch.tensor(0.0))[0]
        torch.testing.assert_close(
            other.update(params, params, other.init(params), 0, torch.tensor(0.0))[0], expected, rtol=0, atol=0
        )
        with torch.no_grad():  # the copy has its own parameters, and uses them
            for value in other.parameters():
                value.add_(1.0)
        moved = other.update(params, params, other.init(params), 0, torch.tensor(0.0))[0]
        assert (moved["w"] - expected["w"]).abs().max() > 1e-3


def test_a_chain_in_a_chain():
    params = {"w": torch.tensor(2.0)}
    rule = fs.chain(fs.scale_by(2.0), fs.chain(fs.clip_by_value(1.0), fs.SGD(0.5)))
    assert rule.update(params, params, rule.init(params), 0, torch.tensor(0.0))[0]["w"] == 1.5


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((), r"chain: the last part must be a rule.*got no part"),
        ((fs.clip_by_norm(1.0),), r"the last part must be a rule, such as.*got _?\w+"),
        ((fs.Adam,), r"the last part must be a rule.*got Adam itself, which must be called first: Adam\(\.\.\.\)"),
        ((fs.clip_by_norm, fs.SGD(0.1)), r"must be a transform.*part 0 is clip_by_norm itself.*called first"),
        ((fs.SGD(0.1), fs.Adam(0.1)), r"part 0 is GradientDescent\. Only the last part may be a rule"),
        ((fs.clip_by_norm(1.0), 3, fs.Adam(0.1)), r"part 1 is int"),
    ],
)
def test_parts_that_cannot_be_chained(parts, words):
    with pytest.raises(TypeError, match=words):
        fs.chain(*parts)

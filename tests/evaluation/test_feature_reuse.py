"""Similarities against closed forms; feature reuse against plain loops."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.evaluation import blocks_of, cca, cka, freezing, layer_similarity, nil
from fewstep.evaluation.activations import activations
from fewstep.figures.feature_reuse import plot_feature_reuse
from fewstep.tasks import Batch, Task, generator


class Images:
    """Three classes of 6×6 images around random templates, labelled anew in every task."""

    def sample(self, n, generator=None):
        templates = torch.randn(n, 3, 1, 6, 6, generator=generator)

        def batch(shots):
            x = templates.repeat(1, shots, 1, 1, 1) + torch.randn(n, 3 * shots, 1, 6, 6, generator=generator)
            return Batch(x, torch.arange(3).repeat(n, shots))

        return Task(batch(2), batch(5))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3))
        self.shift = nn.Parameter(torch.zeros(()))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.body(x).flatten(1) + self.shift)


def maml(**choices):
    return fs.maml(Network(), fs.cross_entropy, 0.5, 3, **choices)


def orthogonal(size):
    return torch.linalg.qr(torch.randn(size, size))[0]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("examples", [60, 4])
def test_what_leaves_similarities_at_one(examples):
    a = torch.randn(examples, 5)
    turned = 3 * a @ orthogonal(5) + torch.randn(5)
    skewed = a @ (torch.randn(5, 5) + 3 * torch.eye(5)) @ torch.diag(torch.tensor([1, 9, 0.1, 2, 30])) - 7
    for b in (a, turned, torch.cat([turned, turned], 1) / 2):
        torch.testing.assert_close(cka(a, b), torch.tensor(1.0), rtol=0, atol=1e-12)
    for b in (a, turned, skewed, torch.cat([skewed, skewed], 1)):
        torch.testing.assert_close(cca(a, b), torch.tensor(1.0), rtol=0, atol=1e-10)
    assert cka(a, skewed) < 0.95


@pytest.mark.usefixtures("double")
def test_known_similarities():
    """Orthonormal, centred columns, mixed so that the canonical correlations are known."""
    basis = torch.linalg.qr(torch.cat([torch.ones(40, 1), torch.randn(40, 6)], 1))[0][:, 1:]
    a, other = basis[:, :3], basis[:, 3:]
    angles = torch.tensor([0.2, 0.7, 1.3])
    b = a * angles.cos() + other * angles.sin()
    mixed = b @ torch.randn(3, 3)
    torch.testing.assert_close(cca(a, mixed), angles.cos().mean())
    torch.testing.assert_close(cka(a, b), angles.cos().square().mean())  # Σcos²/(√3·√3)
    torch.testing.assert_close(cca(a, b[:, :1]), angles[0].cos())
    sizes = torch.tensor([10.0, 1.0, 0.1])
    torch.testing.assert_close(cca(a * sizes, b * sizes, variance=0.9), angles[0].cos())
    assert cca(a, other) < 1e-12
    assert cka(a, other) < 1e-12


@pytest.mark.usefixtures("double")
def test_independent_activations():
    a, b = torch.randn(4000, 4), torch.randn(4000, 6)
    assert cka(a, b) < 0.01
    assert cca(a, b) < 0.1
    few = torch.randn(5, 8), torch.randn(5, 8)
    torch.testing.assert_close(cca(*few), torch.tensor(1.0))  # nothing can be told from fewer examples than features
    assert cka(*few) < 1


@pytest.mark.usefixtures("double")
def test_cka_is_the_same_through_gram_matrices():
    a, b = torch.randn(10, 30), torch.randn(10, 4)
    centre = torch.eye(10) - torch.full((10, 10), 0.1)
    k, m = centre @ a @ a.T @ centre, centre @ b @ b.T @ centre
    torch.testing.assert_close(cka(a, b), (k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt())
    torch.testing.assert_close(cka(b, a), cka(a, b))


def test_directions_that_are_only_rounding_do_not_count():
    a = torch.randn(200, 3)
    noisy = torch.cat([a, a @ torch.randn(3, 3)], 1)  # rank 3, in float32
    again = torch.cat([a, a @ torch.randn(3, 3)], 1)
    assert cca(noisy, again) > 1 - 1e-5
    assert cka(torch.ones(5, 2), torch.randn(5, 2)).isnan()
    assert cca(torch.ones(5, 2), torch.randn(5, 2)).isnan()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cka(torch.ones(3, 2, 2), torch.ones(3, 2)), r"cka expects.*\[3, 2, 2\] and \[3, 2\]"),
        (lambda: cca(torch.ones(3, 2), torch.ones(4, 2)), r"cca expects.*\[3, 2\] and \[4, 2\]"),
        (lambda: cka(torch.ones(1, 2), torch.ones(1, 2)), r"two or more examples"),
        (lambda: cca(torch.ones(3, 2), torch.ones(3, 2), variance=0), r"greater than 0 and at most 1; got 0"),
        (lambda: activations(Network(), ["neck"], torch.ones(1, 1, 6, 6)), r"no module \['neck'\].*'body.0'"),
        (lambda: layer_similarity(maml(), Images(), 2, layers=["tail"]), r"no module \['tail'\]"),
        (lambda: freezing(maml(), Images(), 2, blocks={"a": "tail.*"}), r"blocks='tail.\*' matches no"),
    ],
)
def test_what_cannot_be_measured(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_activations_of_silent_and_odd_modules():
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "spare": nn.Linear(2, 2)})
    model.forward = lambda x: model["used"](model["used"](x))
    assert activations(model, ["used"], torch.ones(3, 2))["used"].shape == (6, 2)
    with pytest.raises(ValueError, match=r"does not call its module\(s\) \['spare'\]"):
        activations(model, ["spare"], torch.ones(3, 2))
    with pytest.raises(TypeError, match="returns a tuple"):
        activations(nn.Sequential(nn.GRU(2, 2)), ["0"], torch.ones(3, 2))
    assert not model["used"]._forward_hooks


def test_blocks():
    assert list(blocks_of(Network())) == ["body.0", "body.2", "head"]
    tied = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2, bias=False))
    tied[2].weight = tied[0].weight
    assert blocks_of(tied) == {"0": "0.*"}


def test_layer_similarity_is_that_of_the_adapted_modules():
    learner, source = maml(), Images()
    found = layer_similarity(learner, source, num_tasks=7, steps=2, layers=["body.0", "body", "head"], meta_batch=4)
    rows = []
    for number, count in enumerate((4, 3)):
        tasks = source.sample(count, generator(0, number, stream=2))
        for i in range(count):
            adapted = learner.adapt(tasks[i].support, steps=2)
            pairs = []
            with torch.no_grad():
                for model in (learner.model, adapted):
                    first = model.body[0](tasks[i].query.x)
                    second = model.body[2](first.relu())
                    head = model(tasks[i].query.x)
                    maps = [m.permute(0, 2, 3, 1).reshape(-1, m.shape[1]) for m in (first, second)]
                    pairs.append([*maps, head])
            rows.append([[f(a, b).item() for a, b in zip(*pairs, strict=True)] for f in (cka, cca)])
    expected = torch.tensor(rows, dtype=torch.float64)
    for place, name in enumerate(("CKA", "CCA")):
        came = found[name]
        torch.testing.assert_close(came.values, expected[:, place], rtol=0, atol=1e-5)
        assert (came.metric, came.names, came.tasks) == (name, ("body.0", "body", "head"), 7)
        values = expected[:, place].numpy()
        np.testing.assert_allclose(came.mean, values.mean(0), atol=1e-5)
        np.testing.assert_allclose(came.ci95, 1.96 * values.std(0, ddof=1) / math.sqrt(7), atol=1e-5)
    assert found["CKA"].values.max() < 0.999
    assert "head" in str(found["CKA"])
    assert learner.training


def test_anil_leaves_its_body_as_it_is():
    learner = fs.anil(Network(), fs.cross_entropy, 0.5, 3, head="head.*")
    for found in layer_similarity(learner, Images(), num_tasks=4).values():
        torch.testing.assert_close(found.values[:, :2], torch.ones(4, 2).double(), rtol=0, atol=1e-12)
        assert found.values[:, 2].max() < 0.999


def test_padding_is_not_compared():
    class Padded(Images):
        def sample(self, n, generator=None):
            tasks = super().sample(n, generator)
            shorter = [Task(t.support, t.query[: 15 - 3 * i]) for i, t in enumerate(tasks[i] for i in range(n))]
            return Task.stack(shorter)

    learner = maml()
    found = layer_similarity(learner, Padded(), num_tasks=2)["CKA"].values[1]
    task = Images().sample(2, generator(0, 0, stream=2))[1]
    before, after = (learner.adapt(task.support, steps)(task.query.x[:12]).detach() for steps in (0, 3))
    torch.testing.assert_close(found[2], cka(before, after), rtol=0, atol=1e-5)


def test_freezing_is_adaptation_of_the_rest():
    learner, source = maml(), Images()
    before = copy.deepcopy(learner.state_dict())
    found = freezing(
        learner, source, num_tasks=6, blocks={"first": "body.0.*", "rest": ["body.2.*", "shift", "head.*"]}
    )
    assert (found.metric, found.names) == ("accuracy", ("none", "first", "rest"))
    tasks = source.sample(6, generator(0, 0, stream=2))
    for i in range(6):
        support, query = tasks[i].support, tasks[i].query
        model = learner.adapt(support, steps=0)
        for _ in range(3):
            rest = [value for name, value in model.named_parameters() if not name.startswith("body.0")]
            gradients = torch.autograd.grad(nn.functional.cross_entropy(model(support.x), support.y), rest)
            with torch.no_grad():
                for value, gradient in zip(rest, gradients, strict=True):
                    value -= 0.5 * gradient
        models = learner.adapt(support), model, learner.model
        expected = [(m(query.x).argmax(1) == query.y).double().mean() for m in models]
        torch.testing.assert_close(found.values[i], torch.stack(expected), rtol=0, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert learner.training


def test_freezing_by_default_goes_from_the_first_block_to_the_last():
    learner, source = maml(), Images()
    found = freezing(learner, source, num_tasks=40)
    assert found.names == ("none", "body.0", "body.2", "head")
    head = fs.maml(learner.model, fs.cross_entropy, 0.5, 3, adapts=["head.*", "shift"])
    only_head = fs.evaluate(head, source, num_tasks=40, metric=fs.accuracy)
    torch.testing.assert_close(found.values[:, 2], only_head.values[:, -1])
    only_shift = fs.maml(learner.model, fs.cross_entropy, 0.5, 3, adapts="shift")
    shifted = fs.evaluate(only_shift, source, num_tasks=40, metric=fs.accuracy)
    torch.testing.assert_close(found.values[:, 3], shifted.values[:, -1])
    anil = fs.anil(learner.model, fs.cross_entropy, 0.5, 3, head="head.*")
    frozen = freezing(anil, source, num_tasks=40).values
    assert torch.equal(frozen[:, 0], frozen[:, 1])
    assert torch.equal(frozen[:, 0], frozen[:, 2])
    nothing = fs.evaluate(anil, source, num_tasks=40, steps=0, metric=fs.accuracy)
    torch.testing.assert_close(frozen[:, 3], nothing.values[:, 0])
    assert frozen[:, 0].mean() > frozen[:, 3].mean() + 0.1


def test_freezing_keeps_learned_rates():
    model = Network()
    learner = fs.meta_sgd(model, fs.cross_entropy, 0.5, 2)
    with torch.no_grad():
        learner.rule.rate("head.weight").zero_()
    found = freezing(learner, Images(), num_tasks=5, blocks={"body": ["body.*", "shift"], "head bias": "head.bias"})
    before = fs.evaluate(learner, Images(), num_tasks=5, steps=0, metric=fs.accuracy)
    torch.testing.assert_close(found.values[:, 2], before.values[:, 0])


@pytest.mark.parametrize("features", ["body", lambda model, x: model.body(x)])
def test_nil_equals_a_plain_loop(features):
    learner, source = maml(), Images()
    found = nil(learner, source, features, num_tasks=8)
    assert (found.metric, found.steps, found.tasks) == ("accuracy", 0, 8)
    tasks = source.sample(8, generator(0, 0, stream=2))
    body = learner.model.body
    for i in range(8):
        support, query = tasks[i].support, tasks[i].query
        right = 0
        for x, y in zip(query.x, query.y, strict=True):
            scores = [0.0, 0.0, 0.0]
            for known, label in zip(support.x, support.y, strict=True):
                one, other = body(x[None]).flatten(), body(known[None]).flatten()
                scores[label] += (one @ other / one.norm() / other.norm()).item()
            right += int(np.argmax(scores)) == y.item()
        assert found.values[i, 0].item() == pytest.approx(right / 15)
    assert 0.4 < found.mean[0] < 1


def test_nil_needs_labels():
    learner = fs.maml(fs.models.MLP(1, [4], 1), fs.mse, 0.1)
    with pytest.raises(ValueError, match=r"integer class labels \[examples\]; got \(10, 1\) of torch.float32"):
        nil(learner, fs.tasks.Sinusoids(), "0", num_tasks=1)


def test_figure_is_written(tmp_path: Path):
    learner = maml()
    found = layer_similarity(learner, Images(), num_tasks=3), freezing(learner, Images(), num_tasks=3)
    file = plot_feature_reuse(*found, tmp_path / "new" / "reuse.png")
    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.stat().st_size > 10_000

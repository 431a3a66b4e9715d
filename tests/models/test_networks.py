"""Every network with every normalisation policy: equal to PyTorch's layers, in all modes, with independent tasks."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fewstep as fs
from fewstep.datasets import LabelledImages
from fewstep.evaluation.feature_reuse import blocks_of, layer_similarity
from fewstep.experiments.few_shot import FewShot
from fewstep.experiments.few_shot.methods.cavia import CAVIA, Context
from fewstep.experiments.few_shot.methods.maml import MAML
from fewstep.experiments.few_shot.methods.relation import Relation
from fewstep.models import BatchNorm, Conv4, FullyConnected, ResNet12, norm_layer
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")
POLICIES = ["batch", "support", "running", "per_step", "group", "layer", "none"]
SIZE, WAYS = 16, 3

KINDS = {
    "conv4": lambda norm: Conv4(1, WAYS, 4, SIZE, norm=norm, activation=functional.leaky_relu),
    "fully-connected": lambda norm: FullyConnected(SIZE**2, WAYS, hidden=(24, 16), norm=norm),
    "resnet12": lambda norm: ResNet12(1, WAYS, widths=(2, 4, 4, 8), image_size=SIZE, norm=norm),
}
STEPS = {"conv4": 2, "fully-connected": 2, "resnet12": 1}  # few, since sixteen convolutions take long
every_network = pytest.mark.parametrize("kind", KINDS)
every_policy = pytest.mark.parametrize("policy", POLICIES)


def network(kind: str, policy: str = "batch") -> Any:
    """A small network away from its initialisation: no ReLU at 0, different steps, some scales negative."""
    made = KINDS[kind](norm_layer(policy, steps=2))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.add_((0.3 if parameter.ndim < 3 else 0.1) * torch.randn_like(parameter))
            if name.endswith("norm.weight"):
                parameter[..., 0] = -0.7  # the maximum does not commute with a negative scale
    return made


def episodes(tasks: int = 2, shots: int = 2, queries: int = 2) -> fs.tasks.Task:
    def images(each: int) -> fs.tasks.Batch:
        return fs.tasks.Batch(torch.rand(tasks, WAYS * each, 1, SIZE, SIZE), torch.arange(WAYS).repeat(tasks, each))

    return fs.tasks.Task(images(shots), images(queries))


def learner_of(kind: str, model: nn.Module, **choices: object) -> fs.MetaLearner:
    adapts = ["*", "!*.norm.*"] if any(".norm." in name for name, _ in model.named_parameters()) else "*"
    return fs.maml(model, fs.cross_entropy, 0.1, STEPS[kind], adapts=adapts, **choices)


def gradient(learner: fs.MetaLearner, tasks: fs.tasks.Task) -> list[Tensor]:
    learner.zero_grad()
    learner.meta_loss(tasks).backward()
    return [value.grad for value in learner.parameters()]


# The networks against the papers' figures, with PyTorch's layers


def batch_norm(norm: BatchNorm, x: Tensor) -> Tensor:
    return functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)


def plain_conv4(model: Conv4, x: Tensor) -> Tensor:
    for block in model.body:
        x = batch_norm(block.norm, functional.conv2d(x, block.weight, padding=1))
        x = functional.max_pool2d(functional.leaky_relu(x, 0.01), 2)
    return model.head(x.flatten(1))


def plain_fully_connected(model: FullyConnected, x: Tensor) -> Tensor:
    x = x.flatten(1)
    for block in model.body:
        x = batch_norm(block.norm, x @ block.linear.weight.T).relu()
    return model.head(x)


def plain_resnet12(model: ResNet12, x: Tensor) -> Tensor:
    def leaky(x: Tensor) -> Tensor:
        return functional.leaky_relu(x, 0.1)

    for block in model.body:
        first, second, third = (
            lambda x, layer=layer: batch_norm(layer.norm, functional.conv2d(x, layer.weight, padding=1))
            for layer in (block.first, block.second, block.third)
        )
        shortcut = batch_norm(block.shortcut.norm, functional.conv2d(x, block.shortcut.weight))
        x = functional.max_pool2d(leaky(third(leaky(second(leaky(first(x))))) + shortcut), 2)
    return model.head(x.mean((2, 3)))


PLAIN = {"conv4": plain_conv4, "fully-connected": plain_fully_connected, "resnet12": plain_resnet12}


class Plain(nn.Module):
    """The same parameters with the same names."""

    def __init__(self, kind: str, model: nn.Module) -> None:
        super().__init__()
        self.kind = kind
        for name, child in model.named_children():
            self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        return PLAIN[self.kind](self, x)


@every_network
def test_logits_and_meta_gradient_are_those_of_pytorchs_layers(kind: str) -> None:
    model, tasks = network(kind), episodes()
    x = tasks.query.x[0]
    torch.testing.assert_close(model(x), PLAIN[kind](model, x))
    torch.testing.assert_close(model.encoder()(x), model.embed(x))
    expected = gradient(learner_of(kind, Plain(kind, model), vectorize=False), tasks)
    recomputed = [{"vectorize": True, "adjoint": fs.Recomputed(mode)} for mode in ("reverse", "forward")]
    for choices in ({"vectorize": False}, {"vectorize": True}, *recomputed):
        torch.testing.assert_close(gradient(learner_of(kind, model, **choices), tasks), expected, rtol=1e-7, atol=1e-9)


# What each policy guarantees, with each network


@every_network
@every_policy
def test_vmap_loop_and_compilation_agree(kind: str, policy: str) -> None:
    model, tasks = network(kind, policy), episodes()
    expected = gradient(learner_of(kind, model, vectorize=False), tasks)
    assert max(value.abs().max() for value in expected) > 1e-3
    for adjoint in (fs.Unrolled(), fs.Recomputed()):
        came = gradient(learner_of(kind, model, vectorize=True, adjoint=adjoint), tasks)
        torch.testing.assert_close(came, expected, rtol=1e-7, atol=1e-9)


@every_network
@every_policy
@pytest.mark.parametrize("vectorize", [True, False])
def test_tasks_do_not_affect_each_other(kind: str, policy: str, vectorize: bool) -> None:
    """Neither its score nor its part of the meta-gradient changes."""
    tasks = episodes()
    changed = copy.deepcopy(tasks)
    changed.support.x[1], changed.query.x[1] = 5 - 3 * tasks.support.x[1], 2 + 3 * tasks.query.x[1]
    learner = learner_of(kind, network(kind, policy), vectorize=vectorize, adjoint=fs.FirstOrder())
    for mode in (False, True):
        learner.train(mode)
        before, after = learner.score(tasks), learner.score(changed)
        torch.testing.assert_close(after[0], before[0], rtol=1e-9, atol=1e-12)
        assert not torch.allclose(after[1], before[1])
    both, first, second = (gradient(learner, part) for part in (tasks, tasks[:1], tasks[1:]))
    mean = [(one + other) / 2 for one, other in zip(first, second, strict=True)]
    torch.testing.assert_close(both, mean, rtol=1e-8, atol=1e-11)


@every_network
@every_policy
def test_adapting_and_scoring_do_not_change_the_learner(kind: str, policy: str) -> None:
    learner, tasks = learner_of(kind, network(kind, policy)), episodes()
    before = copy.deepcopy(learner.state_dict())
    model = learner.adapt(tasks[0].support)
    model(tasks[0].query.x)
    learner.score(tasks)
    for name, value in learner.state_dict().items():
        assert torch.equal(value, before[name]), name


@every_network
@every_policy
def test_queries_affect_each_other_through_batch_statistics_only(kind: str, policy: str) -> None:
    learner, task = learner_of(kind, network(kind, policy)).eval(), episodes()[0]
    model = learner.adapt(task.support)
    x = task.query.x
    together = model(x)
    order = torch.randperm(len(x))
    torch.testing.assert_close(model(x[order]), together[order])
    for alone in (torch.cat([model(image[None]) for image in x]), torch.cat([model(x[:4]), model(x[4:])])):
        assert torch.allclose(alone, together, atol=1e-9) == (policy not in ("batch", "per_step"))


@every_network
@every_policy
def test_the_order_of_the_support_set_does_not_matter(kind: str, policy: str) -> None:
    learner, task = learner_of(kind, network(kind, policy)).eval(), episodes()[0]
    order = torch.randperm(len(task.support.y))
    shuffled = fs.tasks.Batch(task.support.x[order], task.support.y[order])
    torch.testing.assert_close(learner.adapt(shuffled)(task.query.x), learner.adapt(task.support)(task.query.x))


# What the papers say about them


def test_the_fully_connected_network_of_the_paper() -> None:
    model = FullyConnected.maml(ways=5)
    layers = [block.linear for block in model.body] + [model.head]
    assert [tuple(layer.weight.shape) for layer in layers] == [(256, 784), (128, 256), (64, 128), (64, 64), (5, 64)]
    assert all(block.norm.weight is None and block.norm.eps == 1e-3 for block in model.body)
    for layer in layers[:3]:
        assert layer.weight.abs().max() <= 0.02
        assert layer.weight.detach().std() == pytest.approx(0.0088, rel=0.05)  # 0.01, cut at two deviations
    assert not model.head.bias.any()
    assert FullyConnected(12, 2, hidden=[4], norm=norm_layer("none")).body[0].linear.bias is not None


def test_maml_plus_plus_network() -> None:
    omniglot = Conv4.maml_plus_plus(20)
    mini = Conv4.maml_plus_plus(5, in_channels=3, image_size=84, filters=48, steps=3)
    assert (omniglot.features, mini.features) == (64, 48 * 5 * 5)
    assert [block.norm.weight.shape for block in mini.body] == [(3, 48)] * 4
    assert all(block.norm.eps == 1e-5 and block.pool for block in mini.body)
    assert omniglot.body[0].activation(torch.tensor(-1.0)) == pytest.approx(-0.01)


def test_resnet12_of_the_papers() -> None:
    model = ResNet12(3, 5)
    # MetaOptNet's: 12 convolutions of 3×3 and 4 of 1×1 without biases, and two numbers for each normed channel
    widths = [3, 64, 160, 320, 640]
    filters = sum(o * (9 * i + 9 * o + 9 * o + i) + 8 * o for i, o in pairwise(widths))
    assert sum(value.numel() for value in model.body.parameters()) == filters == 12_424_320
    assert model.body[1].first.weight.detach().std() == pytest.approx((2 / (9 * 160)) ** 0.5, rel=0.02)
    assert ResNet12(3, 5, widths=(64, 128, 256, 512)).features == 512


@every_network
def test_feature_reuse_finds_the_blocks(kind: str) -> None:
    model = network(kind)
    expected = [f"body.{i}" for i in range(len(model.body))]
    assert list(blocks_of(model)) == [*expected, "head"]
    learner = fs.anil(model, fs.cross_entropy, 0.5, steps=2, head="head.*")

    class Source:
        def sample(self, n: int, generator: torch.Generator | None = None) -> fs.tasks.Task:
            with torch.random.fork_rng():
                torch.manual_seed(0 if generator is None else generator.initial_seed())
                return episodes(n)

    found = layer_similarity(learner, Source(), num_tasks=2)["CKA"]
    assert found.names == (*expected, "head")
    assert found.mean[:-1] == pytest.approx([1.0] * len(expected))
    assert found.mean[-1] < 0.999


# In experiments


def blank_images(channels: int, size: int) -> LabelledImages:
    return LabelledImages(torch.zeros(2, channels, size, size, dtype=torch.uint8), torch.tensor([0, 1, 2]), ["a", "b"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("paper", Conv4), ("flat", Conv4), ("no-conv", FullyConnected), ("maml++", Conv4), ("resnet12", ResNet12)],
)
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 84)])
def test_networks_by_name(name: Any, kind: type, channels: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FewShot, "images", lambda *_: blank_images(channels, size))
    learner = FewShot(MAML(steps=2), network=name, filters=8, norm="per_step").learner(compile=False)
    assert type(learner.model) is kind
    assert learner.model(torch.rand(2, channels, size, size)).shape == (2, 5)
    assert not any(".norm." in name for name in learner.adapts)
    assert {"head.weight", "head.bias"} < set(learner.adapts)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 84)])
def test_only_the_context_channel_is_adapted(channels: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FewShot, "images", lambda *_: blank_images(channels, size))
    learner = FewShot(Context(), ways=3, shots=1, filters=4).learner(compile=False)
    assert learner.adapts == ["context"]
    assert learner.model.context.shape == (1, size, size)
    support = Batch(torch.rand(3, channels, size, size), torch.arange(3))
    adapted = learner.adapt(support)
    changed = {
        n
        for (n, a), b in zip(adapted.named_parameters(), learner.model.parameters(), strict=True)
        if not torch.equal(a, b)
    }
    assert changed == {"context"}
    learner.meta_loss(Task.stack([Task(support, support)])).backward()
    assert learner.model.context.grad.abs().sum() > 0, "it is learned too"
    assert learner.model.network.body[0].weight.grad[:, -1].abs().sum() > 0


def test_mistakes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"examples of 784 numbers, \[examples, ...\]; got \[5, 1, 20, 20\]"):
        FullyConnected.maml(5)(torch.rand(5, 1, 20, 20))
    with pytest.raises(ValueError, match=r"ResNet12 expects images \[images, 1, 16, 16\]; got \[5, 3, 16, 16\]"):
        network("resnet12")(torch.rand(5, 3, 16, 16))
    with pytest.raises(ValueError, match="images of 12 are too small"):
        ResNet12(1, 5, image_size=12)
    monkeypatch.setattr(FewShot, "images", lambda *_: blank_images(1, 28))
    for method in (CAVIA(), Relation()):
        with pytest.raises(ValueError, match=f"'{method.name}' needs a network of four convolutions; got a FullyConn"):
            FewShot(method, network="no-conv").learner(compile=False)

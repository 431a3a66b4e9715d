"""Conv4 against the same network made of PyTorch's layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

import fewstep as fs
from fewstep.models import BatchNorm, Conv4, FullyConnected, ResNet12, SupportNorm

pytestmark = pytest.mark.usefixtures("double")


def plain_forward(network: Conv4, x: torch.Tensor) -> torch.Tensor:
    """Convolution, normalisation, ReLU and pooling in the order of the papers."""
    for block in network.body:
        x = functional.conv2d(x, block.weight, None, stride=1 if block.pool else 2, padding=1)
        x = functional.batch_norm(x, None, None, training=True, eps=block.norm.eps)
        if block.norm.weight is not None:
            x = x * block.norm.weight[:, None, None]
        x = (x + block.norm.bias[:, None, None]).relu()
        if block.pool:
            x = functional.max_pool2d(x, 2)
    x = x.mean((2, 3)) if network.spatial_mean else x.flatten(1)
    return functional.linear(x, network.head.weight, network.head.bias)


NETWORKS = {
    "omniglot": lambda: Conv4.omniglot(ways=5, filters=6, norm="batch"),
    "mini-imagenet": lambda: Conv4(
        3, 5, filters=4, image_size=24, norm=fs.models.norm_layer("batch", scale=False, eps=1e-3)
    ),
    "scale": lambda: Conv4(2, 5, filters=4, image_size=19, norm=BatchNorm),
}


def made(name: str) -> Conv4:
    network = NETWORKS[name]()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for block in network.body:
            if block.norm.weight is not None:
                block.norm.weight[0] = -0.7  # the maximum does not commute with a negative scale
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_and_gradients(name: str) -> None:
    network = made(name)
    x = torch.rand(6, network.in_channels, network.image_size, network.image_size)
    ours, theirs = network(x), plain_forward(network, x)
    torch.testing.assert_close(ours, theirs)
    parameters = list(network.parameters())
    for mine, expected in zip(
        torch.autograd.grad(ours.sin().sum(), parameters),
        torch.autograd.grad(theirs.sin().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed()])
@pytest.mark.parametrize("vectorize", [True, False])
def test_meta_gradient(name: str, adjoint: fs.adaptation.Adjoint, vectorize: bool) -> None:
    network = made(name)
    size = network.image_size

    def images(per_class: int) -> fs.tasks.Batch:
        return fs.tasks.Batch(
            torch.rand(2, 5 * per_class, network.in_channels, size, size), torch.arange(5).repeat(2, per_class)
        )

    tasks = fs.tasks.Task(images(1), images(2))
    learner = fs.maml(network, fs.cross_entropy, 0.1, steps=2, adjoint=adjoint, vectorize=vectorize)
    learner.meta_loss(tasks).backward()

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return plain_forward(self.network, x)

    reference = fs.maml(Plain(), fs.cross_entropy, 0.1, steps=2, vectorize=False)
    reference.meta_loss(tasks).backward()
    for mine, expected in zip(learner.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("norm", [SupportNorm, fs.models.norm_layer("support", scale=False)])
def test_support_statistics_with_pooling_first(norm: Callable[[int], nn.Module]) -> None:
    """An adapted network classifies one image as the layers do one after the other, by the support set's statistics."""
    network = Conv4(2, 5, filters=4, image_size=19, norm=norm)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for block in network.body:
            if block.norm.weight is not None:
                block.norm.weight[0] = -0.7
    support, query = torch.rand(10, 2, 19, 19), torch.rand(4, 2, 19, 19)
    adapted = fs.maml(network, fs.cross_entropy, 0.1).adapt(fs.Batch(support, torch.arange(10) % 5))
    with torch.no_grad():
        maps = [support, query]
        for block in adapted.body:
            maps = [functional.conv2d(x, block.weight, padding=1) for x in maps]
            mean, variance = maps[0].mean((0, 2, 3)), maps[0].var((0, 2, 3), correction=0)
            torch.testing.assert_close((block.norm.mean, block.norm.variance), (mean, variance))
            maps = [functional.batch_norm(x, mean, variance, block.norm.weight, block.norm.bias) for x in maps]
            maps = [functional.max_pool2d(x.relu(), 2) for x in maps]
        alone = torch.cat([adapted(image[None]) for image in query])
        torch.testing.assert_close(alone, adapted.head(maps[1].flatten(1)))


def test_networks_classify_one_image_as_well_as_many_by_default() -> None:
    networks = [
        Conv4(1, 3, filters=4, image_size=16),
        Conv4.omniglot(3, filters=4),
        Conv4.mini_imagenet(3, filters=4, image_size=16, in_channels=1),
        FullyConnected(16 * 16, 3, hidden=[8]),
        FullyConnected.maml(3, 16 * 16),
        ResNet12(1, 3, widths=(2, 4, 4, 8), image_size=16),
    ]
    for network in networks:
        assert any(isinstance(module, SupportNorm) for module in network.modules())
        size = getattr(network, "image_size", 16)
        support, query = (torch.rand(n, 1, size, size) for n in (6, 4))
        adapted = fs.maml(network, fs.cross_entropy, 0.1).adapt(fs.Batch(support, torch.arange(6) % 3))
        torch.testing.assert_close(torch.cat([adapted(image[None]) for image in query]), adapted(query))


def test_the_papers_sizes() -> None:
    omniglot, mini = Conv4.omniglot(20), Conv4.mini_imagenet(5)
    assert omniglot.features == 64
    assert mini.features == 800
    assert (
        sum(value.numel() for value in mini.parameters()) == 32901 - 8 * 32
    )  # the usual count, without scales and biases of convolutions
    assert all(block.norm.weight is None and block.norm.eps == 1e-3 for block in omniglot.body)
    assert omniglot.head.weight.detach().std() == pytest.approx(1, rel=0.1)
    assert omniglot(torch.rand(2, 1, 28, 28)).shape == (2, 20)
    assert mini(torch.rand(2, 3, 84, 84)).shape == (2, 5)


def test_images_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[images, 1, 28, 28\]; got \[5, 3, 28, 28\]"):
        Conv4(1, 5)(torch.rand(5, 3, 28, 28))
    with pytest.raises(ValueError, match="images of 12 are too small"):
        Conv4(1, 5, image_size=12)


def test_batch_norm_equals_pytorchs() -> None:
    x = torch.randn(7, 3, 4) + 2
    torch.testing.assert_close(BatchNorm(3)(x), nn.BatchNorm1d(3, track_running_stats=False)(x))
    assert dict(BatchNorm(3, scale=False, shift=False).named_parameters()) == {}

"""Relation networks: a learned comparison of feature maps (Sung et al. 2018)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.arguments import check_module, check_whole
from fewstep.baselines.episodic import EpisodicLearner, Logits
from fewstep.baselines.labels import memberships
from fewstep.objectives import mse
from fewstep.tasks import Batch


class RelationNetwork(EpisodicLearner):
    """A relation network (Sung et al. 2018, equation 1).

    The score of class i for query j is r_ij = g(C(Σ f(x_i), f(x_j))), where the sum is over the shots of the class, and
    C concatenates the feature maps along the channels, the class first. The loss is the squared error of r_ij against 1
    for the correct class and 0 for the others (equation 2; the mean here). The scores are not logits; the largest one
    is the prediction.

    Args:
        encoder: maps images to feature maps ``[n, C, H, W]``.
        relation: maps concatenated feature maps ``[n, 2C, H, W]`` to scores ``[n]``, such as
            [`RelationModule`][fewstep.baselines.RelationModule]; it is copied.
        ways: the number of classes of a task.

    Examples:
        >>> learner = RelationNetwork(nn.Conv2d(1, 4, 3, padding=1), RelationModule(channels=4, size=8), ways=5)
        >>> support = Batch(torch.randn(5, 1, 8, 8), torch.arange(5))
        >>> learner.adapt(support)(torch.randn(3, 1, 8, 8)).shape
        torch.Size([3, 5])
    """

    def __init__(self, encoder: nn.Module, relation: nn.Module, ways: int) -> None:
        super().__init__(encoder, ways, relation_error)
        check_module("RelationNetwork", relation=relation)
        self.relation = copy.deepcopy(relation)

    def classify(self, support: Batch, x: Tensor) -> Logits:
        examples, queries = self.embed(support, x, axes=4)
        sums = memberships(support, self.ways, examples).mT @ examples.flatten(1)
        shape = (len(queries), self.ways, *examples.shape[1:])
        pairs = torch.cat([sums.view(shape[1:]).expand(shape), queries[:, None].expand(shape)], 2)
        return self.relation(pairs.flatten(0, 1)).reshape(len(queries), self.ways)


class RelationModule(nn.Sequential):
    """The paper's relation module: two blocks of convolution and pooling, two linear layers, a sigmoid (section 3.4).

    Each block is a 3×3 convolution, batch normalisation by the current batch, ReLU and 2×2 max-pooling. The paper's
    modules are ``RelationModule(64, 5)`` for Omniglot and ``RelationModule(64, 19, padding=0)`` for mini-ImageNet.

    Args:
        channels: the channels of the encoder's feature maps and of the convolutions.
        size: height and width of the feature maps.
        padding: the padding of the convolutions.
        hidden: the width of the first linear layer.

    Raises:
        ValueError: the feature maps are too small.

    Examples:
        >>> RelationModule(64, 19, padding=0)(torch.randn(2, 128, 19, 19)).shape
        torch.Size([2])
    """

    def __init__(self, channels: int, size: int, padding: int = 1, hidden: int = 8) -> None:
        check_whole("RelationModule", channels=channels, size=size, hidden=hidden)
        check_whole("RelationModule", 0, padding=padding)
        layers: list[nn.Module] = []
        left = size
        for inputs in (2 * channels, channels):
            layers += [
                nn.Conv2d(inputs, channels, 3, padding=padding),
                nn.BatchNorm2d(channels, track_running_stats=False),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            left = (left + 2 * padding - 2) // 2
        if left < 1:
            raise ValueError(f"RelationModule: maps of size {size} are too small for two blocks of padding {padding}.")
        features = channels * left * left
        layers += [nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Sigmoid()]
        super().__init__(*layers, nn.Flatten(0))


def relation_error(model: Any, batch: Batch) -> Tensor:
    """Mean squared error of scores ``[n, ways]`` against one-hot targets (Sung et al. 2018, equation 2).

    Examples:
        >>> relation_error(lambda x: torch.tensor([[0.5, 0.0]]), Batch(torch.zeros(1), torch.tensor([0]))).item()
        0.125
    """
    scores = model(batch.x)
    target = memberships(Batch(batch.x, batch.y), scores.shape[-1], scores)
    return mse(lambda _: scores, Batch(batch.x, target, batch.weight))

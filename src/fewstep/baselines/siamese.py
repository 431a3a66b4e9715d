"""Siamese networks, which predict whether two images have the same class (Koch et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.arguments import check_whole
from fewstep.baselines.episodic import AdaptedClassifier, EpisodicLearner, Logits
from fewstep.baselines.labels import class_means, memberships
from fewstep.tasks import Batch


class SiameseNetwork(EpisodicLearner):
    """A Siamese network (Koch et al. 2015, section 3.1).

    For a pair of images, p(same class) = σ(Σ_j α_j·|f(x)_j − f(x')_j| + β). The loss is the binary cross-entropy over
    pairs of a query and a support image (section 3.2); pairs of the same class and of different classes have total
    weight 1/2 each. At test, the logit of a class is the mean log-odds over its support images; with one shot the
    prediction is the class of the most similar image (section 4.3). The bias β is not in the paper; without it, two
    equal images have p = 1/2.

    Args:
        encoder: maps images to feature vectors ``[n, features]``; the paper's ends in a sigmoid.
        features: the length of the feature vectors.
        ways: the number of classes of a task.

    Examples:
        >>> learner = SiameseNetwork(nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Sigmoid()), features=8, ways=5)
        >>> learner.adapt(Batch(torch.randn(5, 4), torch.arange(5)))(torch.randn(3, 4)).shape
        torch.Size([3, 5])
    """

    def __init__(self, encoder: nn.Module, features: int, ways: int) -> None:
        super().__init__(encoder, ways, pair_cross_entropy)
        check_whole("SiameseNetwork", features=features)
        self.comparison = nn.Linear(features, 1)

    def classify(self, support: Batch, x: Tensor) -> Logits:
        pairs = self.pairs(support, x)
        return class_means(pairs, memberships(support, self.ways, pairs))

    def pairs(self, support: Batch, x: Tensor) -> Tensor:
        """The log-odds that a query and a support image have the same class, ``[queries, support]``."""
        examples, queries = self.embed(support, x)
        return self.comparison((queries[:, None] - examples).abs()).squeeze(-1)


def pair_cross_entropy(model: AdaptedClassifier, batch: Batch) -> Tensor:
    """Binary cross-entropy over pairs of a query and a support image (Koch et al. 2015, section 3.2).

    Pairs of the same class and of different classes have total weight 1/2 each.

    Args:
        model: an adapted [`SiameseNetwork`][fewstep.baselines.SiameseNetwork].
        batch: the query set.

    Raises:
        TypeError: the model is not an adapted Siamese network.
    """
    learner, support = model.learner, model.support
    if not isinstance(learner, SiameseNetwork):
        raise TypeError(f"pair_cross_entropy needs an adapted SiameseNetwork; got a model of {type(learner).__name__}.")
    pairs = learner.pairs(support, batch.x)
    same = (batch.y[:, None] == support.y).to(pairs.dtype)
    losses = functional.binary_cross_entropy_with_logits(pairs, same, reduction="none")
    weight = torch.ones_like(pairs)
    if batch.weight is not None:
        weight = weight * batch.weight[:, None]
    if support.weight is not None:
        weight = weight * support.weight
    halves = [(losses * kind).sum() / kind.sum() for kind in (weight * same, weight * (1 - same))]
    return (halves[0] + halves[1]) / 2

"""Siamese networks: are two images of one class? (Koch et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.baselines.episodic import AdaptedClassifier, EpisodicLearner, Logits
from fewstep.baselines.labels import class_means, memberships
from fewstep.tasks import Batch


class SiameseNetwork(EpisodicLearner):
    """p(same class) = σ(Σ_j α_j·|f(x)_j − f(x')_j| + β) for a pair of images (Koch et al. 2015, section 3.1).

    Trained to tell pairs of one class from others, by binary cross-entropy (section 3.2); a pair is a query and a
    support image, and both kinds count one half. At test a query takes the class of the most similar support image
    (section 4.3) or, with several shots, of the highest mean log-odds, which are the logits. The bias β is not in the
    paper; without it two equal images have p = 1/2.

    Args:
        encoder: images to feature vectors ``[n, features]``; the paper's ends in a sigmoid.
        features: length of the feature vectors.
        ways: classes of a task.

    Examples:
        >>> learner = SiameseNetwork(nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Sigmoid()), features=8, ways=5)
        >>> learner.adapt(Batch(torch.randn(5, 4), torch.arange(5)))(torch.randn(3, 4)).shape
        torch.Size([3, 5])
    """

    def __init__(self, encoder: nn.Module, features: int, ways: int) -> None:
        super().__init__(encoder, ways, pair_cross_entropy)
        self.comparison = nn.Linear(features, 1)

    def classify(self, support: Batch, x: Tensor) -> Logits:
        pairs = self.pairs(support, x)
        return class_means(pairs, memberships(support, self.ways, pairs))

    def pairs(self, support: Batch, x: Tensor) -> Tensor:
        """The log-odds that query and support image are of one class, ``[queries, support]``."""
        examples, queries = self.embed(support, x)
        return self.comparison((queries[:, None] - examples).abs()).squeeze(-1)


def pair_cross_entropy(model: AdaptedClassifier, batch: Batch) -> Tensor:
    """Binary cross-entropy over the pairs of a query and a support image, half of it from pairs of one class.

    Args:
        model: an adapted [`SiameseNetwork`][fewstep.baselines.SiameseNetwork].
        batch: the query set.
    """
    learner, support = model.learner, model.support
    if not isinstance(learner, SiameseNetwork):
        raise TypeError(f"pair_cross_entropy judges a SiameseNetwork's pairs; got {type(learner).__name__}.")
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

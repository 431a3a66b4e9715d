"""Prototypical networks: the nearest class mean (Snell et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from fewstep.baselines.distances import similarity
from fewstep.baselines.episodic import EpisodicLearner, Logits
from fewstep.baselines.labels import class_means, memberships
from fewstep.objectives import cross_entropy
from fewstep.tasks import Batch


class PrototypicalNetwork(EpisodicLearner):
    """A prototypical network (Snell et al. 2017, equations 1 and 2).

    p(y = k | x) ∝ exp(−d(f(x), c_k)), where c_k is the mean of f over the support examples of class k, and d the
    squared Euclidean distance or 1 − cosine. The loss is the cross-entropy of the queries (Algorithm 1). The paper
    trains with more ways than at test: for that, load the state of the trained learner into one with other ``ways``.

    Args:
        encoder: maps images to feature vectors ``[n, d]``.
        ways: the number of classes of a task.
        distance: ``"euclidean"`` or ``"cosine"``.

    Examples:
        >>> import torch
        >>> learner = PrototypicalNetwork(nn.Flatten(), ways=2)
        >>> support = Batch(torch.tensor([[0.0], [4.0], [2.0]]), torch.tensor([0, 1, 0]))
        >>> learner.adapt(support)(torch.tensor([[1.0], [3.5]]))  # prototypes at 1 and 4
        tensor([[-0.0000, -9.0000],
                [-6.2500, -0.2500]])
    """

    def __init__(self, encoder: nn.Module, ways: int, distance: str = "euclidean") -> None:
        super().__init__(encoder, ways, cross_entropy)
        self._similarity = similarity(distance)

    def classify(self, support: Batch, x: Tensor) -> Logits:
        examples, queries = self.embed(support, x)
        prototypes = class_means(examples.mT, memberships(support, self.ways, examples)).mT
        return self._similarity(queries, prototypes)

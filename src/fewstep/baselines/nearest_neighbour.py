"""Nearest-neighbour classification by features: the row "nearest neighbour" of several papers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewstep.baselines.distances import similarity
from fewstep.baselines.episodic import EpisodicLearner, Logits
from fewstep.baselines.labels import memberships
from fewstep.objectives import cross_entropy
from fewstep.tasks import Batch


class NearestNeighbour(EpisodicLearner):
    """A classifier that assigns the class of the nearest support example (Vinyals et al. 2016, section 4, baselines).

    The logit of a class is the similarity of its nearest example: −‖a − b‖², or the cosine. For the row "nearest
    neighbour" of the MAML and Meta-LSTM papers, pass it to
    [`PretrainedClassifier`][fewstep.baselines.PretrainedClassifier].

    Args:
        encoder: maps images to feature vectors ``[n, d]``; ``nn.Flatten()`` compares pixels.
        ways: the number of classes of a task.
        distance: ``"euclidean"`` or ``"cosine"``.

    Examples:
        >>> learner = NearestNeighbour(nn.Flatten(), ways=2)
        >>> support = Batch(torch.tensor([[0.0], [4.0], [2.0]]), torch.tensor([0, 1, 0]))
        >>> learner.adapt(support)(torch.tensor([[2.5]]))
        tensor([[-0.2500, -2.2500]])
    """

    def __init__(self, encoder: nn.Module, ways: int, distance: str = "euclidean") -> None:
        super().__init__(encoder, ways, cross_entropy)
        self._similarity = similarity(distance)

    def classify(self, support: Batch, x: Tensor) -> Logits:
        examples, queries = self.embed(support, x)
        near = self._similarity(queries, examples)
        members = memberships(support, self.ways, near) > 0
        return torch.where(members, near[..., None], -torch.inf).amax(1)

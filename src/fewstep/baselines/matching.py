"""Matching networks: attention over the support set (Vinyals et al. 2016)."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from fewstep.arguments import check_module
from fewstep.baselines.distances import cosine
from fewstep.baselines.episodic import EpisodicLearner, Logits
from fewstep.baselines.full_context import FullContext
from fewstep.baselines.labels import memberships
from fewstep.objectives import cross_entropy
from fewstep.tasks import Batch


class MatchingNetwork(EpisodicLearner):
    """A matching network (Vinyals et al. 2016, equation 1).

    P(y | x) = Σ_i a(x, x_i)·[y_i = y], where a is the softmax over i of cos(f(x), g(x_i)). The logits are log P, and
    the loss is the cross-entropy of the queries (equation 2).

    Args:
        encoder: maps images to feature vectors ``[n, d]``; f' and g' of the paper are the same network.
        ways: the number of classes of a task.
        context: full context embeddings, such as ``FullContext(features=d)``, which are copied; if not given, f = f'
            and g = g'.

    Examples:
        >>> import torch
        >>> learner = MatchingNetwork(nn.Flatten(), ways=2)
        >>> support = Batch(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 0]))
        >>> learner.adapt(support)(torch.tensor([[5.0, 0.0]])).exp()  # 1 / (1 + e) and e / (1 + e)
        tensor([[0.2689, 0.7311]])
    """

    def __init__(self, encoder: nn.Module, ways: int, context: FullContext | None = None) -> None:
        super().__init__(encoder, ways, cross_entropy)
        if context is not None:
            check_module("MatchingNetwork", context=context)
        self.context = copy.deepcopy(context)

    def classify(self, support: Batch, x: Tensor) -> Logits:
        examples, queries = self.embed(support, x)
        if self.context is not None:
            examples, queries = self.context(examples, queries, support.weight)
        attention = cosine(queries, examples).exp()
        return (attention @ memberships(support, self.ways, examples)).log().log_softmax(-1)

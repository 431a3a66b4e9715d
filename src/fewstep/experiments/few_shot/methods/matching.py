"""Matching networks (Vinyals et al. 2016), with and without full context embeddings."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fewstep import baselines
from fewstep.experiments.few_shot.experiment import FewShot, Method
from fewstep.experiments.few_shot.networks import AnyNetwork
from fewstep.experiments.few_shot.protocols import MAML, META_LSTM, equal_budget, mini_imagenet, omniglot


class Matching(Method):
    """A mean of the support labels, weighted by cosine similarity."""

    name = "matching"
    summary = "matching network"
    compiles: ClassVar[bool] = False

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        return baselines.MatchingNetwork(model.encoder(), experiment.ways)


class MatchingInContext(Method):
    """The same with features that depend on the whole support set, by LSTMs."""

    name = "matching-context"
    summary = "matching network with full context embeddings"
    compiles: ClassVar[bool] = False

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        return baselines.MatchingNetwork(model.encoder(), experiment.ways, baselines.FullContext(model.features))


_OMNIGLOT = {(5, 1): (0.981, None), (5, 5): (0.989, None), (20, 1): (0.938, None), (20, 5): (0.985, None)}
_IN_CONTEXT = {1: (0.4356, 0.0084), 5: (0.5531, 0.0073)}

ROWS = [
    *omniglot(Matching(), _OMNIGLOT, MAML, network="flat"),
    *mini_imagenet(MatchingInContext(), _IN_CONTEXT, META_LSTM, network="flat"),
    *equal_budget(Matching()),
    # at 3e-3 the LSTMs of the full context lose again what they have learned
    *equal_budget(MatchingInContext(), outer_lr=1e-3),
]

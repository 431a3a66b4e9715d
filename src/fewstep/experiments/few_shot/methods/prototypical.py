"""Prototypical networks (Snell et al. 2017)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fewstep import baselines
from fewstep.experiments.few_shot.experiment import FewShot, Method
from fewstep.experiments.few_shot.networks import AnyNetwork
from fewstep.experiments.few_shot.protocols import equal_budget, mini_imagenet, omniglot


class Prototypical(Method):
    """The nearest class mean in feature space."""

    name = "protonet"
    summary = "prototypical network"
    compiles: ClassVar[bool] = False

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        return baselines.PrototypicalNetwork(model.encoder(), experiment.ways)


_PAPER = "Prototypical networks, Table 2"

ROWS = [
    *omniglot(Prototypical(), network="flat"),
    *mini_imagenet(Prototypical(), {1: (0.4942, None), 5: (0.6820, None)}, _PAPER, network="flat"),
    *equal_budget(Prototypical()),
]

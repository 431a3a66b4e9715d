"""Relation networks (Sung et al. 2018)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fewstep import baselines
from fewstep.experiments.few_shot.experiment import FewShot, Method
from fewstep.experiments.few_shot.networks import AnyNetwork, four_convolutions
from fewstep.experiments.few_shot.protocols import equal_budget, mini_imagenet


class Relation(Method):
    """A learned similarity of the maps of two images, after two convolutions."""

    name = "relation"
    summary = "relation network"
    compiles: ClassVar[bool] = False

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        conv4 = four_convolutions(model, self.name)
        similarity = baselines.RelationModule(experiment.filters, -(-conv4.image_size // 4))
        return baselines.RelationNetwork(conv4.body[:2], similarity, experiment.ways)


ROWS = [
    *mini_imagenet(Relation(), {1: (0.5044, None), 5: (0.6532, None)}, "Relation networks", network="flat"),
    *equal_budget(Relation()),
]

"""Siamese networks (Koch et al. 2015)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fewstep import baselines
from fewstep.experiments.few_shot.experiment import FewShot, Method
from fewstep.experiments.few_shot.networks import AnyNetwork
from fewstep.experiments.few_shot.protocols import MAML, equal_budget, omniglot


class Siamese(Method):
    """Pairs of images are classified as of one class or of two."""

    name = "siamese"
    summary = "Siamese network"
    compiles: ClassVar[bool] = False

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        encoder = nn.Sequential(model.encoder(), nn.Sigmoid())
        return baselines.SiameseNetwork(encoder, model.features, experiment.ways)


_OMNIGLOT = {(5, 1): (0.973, None), (5, 5): (0.984, None), (20, 1): (0.882, None), (20, 5): (0.970, None)}

ROWS = [*omniglot(Siamese(), _OMNIGLOT, MAML, network="flat"), *equal_budget(Siamese())]

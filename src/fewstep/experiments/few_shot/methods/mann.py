"""Memory-augmented neural networks (Santoro et al. 2016)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fewstep import baselines
from fewstep.experiments.few_shot.experiment import FewShot, Method
from fewstep.experiments.few_shot.networks import AnyNetwork
from fewstep.experiments.few_shot.protocols import MAML, equal_budget, omniglot


class MANN(Method):
    """An LSTM with an external memory reads the support set, image by image."""

    name = "mann"
    summary = "memory-augmented network"
    compiles: ClassVar[bool] = False

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        return baselines.MANN(model.encoder(), model.features, experiment.ways)


_OMNIGLOT = {(5, 1): (0.828, None), (5, 5): (0.949, None)}

ROWS = [*omniglot(MANN(), _OMNIGLOT, MAML, ways=(5,), last=True, network="flat"), *equal_budget(MANN())]

"""ANIL (Raghu et al. 2019) and BOIL (Oh et al. 2021): only the head, or only the body, is adapted."""

from __future__ import annotations

from torch import nn

import fewstep
from fewstep.experiments.few_shot.experiment import FewShot
from fewstep.experiments.few_shot.gradient import GradientMethod
from fewstep.experiments.few_shot.networks import AnyNetwork
from fewstep.experiments.few_shot.protocols import equal_budget, mini_imagenet, omniglot


class ANIL(GradientMethod):
    """MAML whose inner loop moves the head only."""

    name = "anil"
    summary = "ANIL: only the head is adapted"

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        return fewstep.anil(model, fewstep.cross_entropy, self.inner_lr, self.steps, head="head.*", compile=compile)


class BOIL(GradientMethod):
    """MAML whose inner loop moves all but the head."""

    name = "boil"
    summary = "BOIL: all but the head is adapted"

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        return fewstep.boil(model, fewstep.cross_entropy, self.inner_lr, self.steps, head="head.*", compile=compile)


ROWS = [
    *omniglot(ANIL, {(20, 1): (0.962, 0.005), (20, 5): (0.980, 0.003)}, "ANIL, Table 2"),
    *omniglot(BOIL),
    *mini_imagenet(ANIL, {1: (0.467, 0.004), 5: (0.615, 0.005)}, "ANIL, Table 2"),
    *mini_imagenet(BOIL, {1: (0.4961, None), 5: (0.6645, None)}, "BOIL"),
    *equal_budget(ANIL),
    *equal_budget(BOIL),
]

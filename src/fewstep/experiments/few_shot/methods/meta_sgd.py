"""Meta-SGD (Li et al. 2017)."""

from __future__ import annotations

from torch import nn

import fewstep
from fewstep.experiments.few_shot.experiment import FewShot
from fewstep.experiments.few_shot.gradient import WholeNetworkMethod
from fewstep.experiments.few_shot.networks import AnyNetwork
from fewstep.experiments.few_shot.protocols import equal_budget, mini_imagenet, omniglot


class MetaSGD(WholeNetworkMethod):
    """MAML with learned step sizes, which begin at ``inner_lr``."""

    name = "meta-sgd"
    summary = "Meta-SGD: a learned rate for every entry of every parameter"

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        return fewstep.meta_sgd(
            model, fewstep.cross_entropy, self.inner_lr, self.steps, adapts=self.adapts(model), compile=compile
        )


_ONE_STEP = MetaSGD(inner_lr=0.05, steps=1, test_steps=1)

ROWS = [
    *omniglot(MetaSGD),
    *mini_imagenet(_ONE_STEP, {1: (0.5047, 0.0187), 5: (0.6403, 0.0094)}, "Meta-SGD"),
    *equal_budget(MetaSGD),
]

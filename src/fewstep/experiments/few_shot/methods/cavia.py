"""CAVIA (Zintgraf et al. 2019), and the context vector that the MAML paper compares with (Table 3)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

import fewstep
from fewstep.experiments.few_shot.experiment import FewShot
from fewstep.experiments.few_shot.gradient import GradientMethod
from fewstep.experiments.few_shot.networks import AnyNetwork, four_convolutions
from fewstep.experiments.few_shot.protocols import equal_budget, mini_imagenet, omniglot
from fewstep.models import ContextChannel, ContextConv4


class CAVIA(GradientMethod):
    """MAML whose inner loop moves a context vector only, which scales and shifts the maps of the third block."""

    name = "cavia"
    summary = "CAVIA: only context parameters are adapted"

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        with_context = ContextConv4(four_convolutions(model, self.name), experiment.filters)
        return fewstep.cavia(with_context, fewstep.cross_entropy, self.inner_lr, self.steps, compile=compile)


class Context(GradientMethod):
    """MAML whose inner loop moves only a channel of free parameters beside the image."""

    name = "context"
    summary = "only a channel of free parameters beside the image is adapted"
    extra_channels: ClassVar[int] = 1

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        with_context = ContextChannel(model, four_convolutions(model, self.name).image_size)
        return fewstep.maml(
            with_context, fewstep.cross_entropy, self.inner_lr, self.steps, adapts="context", compile=compile
        )


_TWO_STEPS = CAVIA(inner_lr=1.0, steps=2, test_steps=2)

ROWS = [
    *omniglot(Context, {(5, 1): (0.949, 0.009), (5, 5): (0.977, 0.003)}, "MAML, Table 3", ways=(5,), last=True),
    *mini_imagenet(_TWO_STEPS, {1: (0.4984, None), 5: (0.6463, None)}, "CAVIA, 128 filters", filters=128),
    *equal_budget(CAVIA(inner_lr=1.0)),
    *equal_budget(Context),
]

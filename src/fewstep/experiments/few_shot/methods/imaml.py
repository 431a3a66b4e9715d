"""Implicit MAML (Rajeswaran et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

import fewstep
from fewstep.experiments.few_shot.experiment import FewShot
from fewstep.experiments.few_shot.gradient import WholeNetworkMethod
from fewstep.experiments.few_shot.networks import AnyNetwork
from fewstep.experiments.few_shot.protocols import equal_budget, mini_imagenet
from fewstep.experiments.option_types import NonNegative


@dataclass(frozen=True)
class IMAML(WholeNetworkMethod):
    """An inner loop that is pulled to the shared parameters, and differentiated implicitly at its end."""

    name = "imaml"
    summary = "implicit MAML"

    regularization: NonNegative = 2.0
    """Weight of the pull to the shared parameters."""
    damping: NonNegative = 0.0
    """Added to that weight in the linear system."""

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        return fewstep.imaml(
            model, fewstep.cross_entropy, self.inner_lr, self.steps, regularization=self.regularization,
            damping=self.damping, adapts=self.adapts(model), compile=compile,
        )  # fmt: skip


# Measured at φ after 200 iterations, the support loss has curvatures from −4 to 85. Steps over 2/85 do not converge
# (the authors' 0.1 oscillates), and with a pull of 2 alone the linear system is indefinite.
_METHOD = IMAML(inner_lr=0.03, steps=16, test_steps=16, damping=22.0)

ROWS = [
    *mini_imagenet(_METHOD, {1: (0.4930, 0.0188)}, "implicit MAML"),
    *equal_budget(replace(_METHOD, adapts_norms=True)),
]

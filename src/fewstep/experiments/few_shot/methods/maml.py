"""MAML and first-order MAML (Finn et al. 2017)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

import fewstep
from fewstep.experiments.few_shot.experiment import FewShot
from fewstep.experiments.few_shot.gradient import WholeNetworkMethod
from fewstep.experiments.few_shot.networks import AnyNetwork
from fewstep.experiments.few_shot.protocols import MAML as SOURCE
from fewstep.experiments.few_shot.protocols import REPTILE, equal_budget, mini_imagenet, omniglot, row
from fewstep.experiments.other_norms import OtherNorm


class MAML(WholeNetworkMethod):
    """Gradient steps on the whole network, with the exact meta-gradient."""

    name = "maml"
    summary = "MAML"
    other_norms: ClassVar[tuple[OtherNorm, ...]] = ("batch", "support")

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        return fewstep.maml(
            model, fewstep.cross_entropy, self.inner_lr, self.steps, adapts=self.adapts(model), compile=compile
        )


class FOMAML(WholeNetworkMethod):
    """MAML whose inner gradients are treated as constants."""

    name = "fomaml"
    summary = "first-order MAML: second derivatives dropped"

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        return fewstep.fomaml(
            model, fewstep.cross_entropy, self.inner_lr, self.steps, adapts=self.adapts(model), compile=compile
        )


_OMNIGLOT = {(5, 1): (0.987, 0.004), (5, 5): (0.999, 0.001), (20, 1): (0.958, 0.003), (20, 5): (0.989, 0.002)}
_FIRST_ORDER = {(5, 1): (0.983, None), (5, 5): (0.992, None), (20, 1): (0.894, None), (20, 5): (0.979, None)}
_WITHOUT_CONVOLUTIONS = {1: (0.897, 0.011), 5: (0.975, 0.006)}

ROWS = [
    *omniglot(MAML, _OMNIGLOT, SOURCE),
    *omniglot(FOMAML, _FIRST_ORDER, REPTILE),
    *mini_imagenet(MAML, {1: (0.4870, 0.0184), 5: (0.6311, 0.0092)}, SOURCE),
    *mini_imagenet(FOMAML, {1: (0.4807, 0.0175), 5: (0.6315, 0.0091)}, SOURCE),
    *(
        row(MAML(), (2,), printed, SOURCE, "maml-noconv", "MAML without convolutions: layers of 256, 128, 64 and 64",
            shots=shots, queries=shots, network="no-conv")
        for shots, printed in _WITHOUT_CONVOLUTIONS.items()
    ),
    *equal_budget(MAML),
    *equal_budget(MAML, ("omniglot",), section=(5,), label="maml-support", norm="support",
                  summary="MAML, query images normalised by the support set"),
    *equal_budget(MAML, ("glyphs",), name="glyphs-5way-1shot", by_default=False,  # the same as glyphs-5way-1shot-maml
                  summary="MAML on characters drawn on the spot, no download"),
    *equal_budget(FOMAML),
]  # fmt: skip

"""Reptile (Nichol et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

import fewstep
from fewstep.experiments.few_shot.experiment import FewShot
from fewstep.experiments.few_shot.gradient import WholeNetworkMethod
from fewstep.experiments.few_shot.networks import AnyNetwork
from fewstep.experiments.few_shot.protocols import REPTILE, equal_budget, mini_imagenet, omniglot
from fewstep.experiments.option_types import Count, NonNegative, Number
from fewstep.experiments.row import Row


@dataclass(frozen=True)
class Reptile(WholeNetworkMethod):
    """Parameters move towards those after inner steps of Adam, whose state is carried from task to task."""

    name = "reptile"
    summary = "Reptile, transductive"
    training: ClassVar[dict[str, Any]] = {"schedule": "linear"}

    inner_lr: NonNegative = 1e-3
    """Step size of Adam in the inner loop."""
    steps: Number = 5
    """Inner steps in training."""
    test_steps: Number = 50
    """Inner steps at test."""
    inner_batch: Count | None = None
    """Support images that each inner step sees, the next step the next ones; all if not given."""

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        rule = fewstep.CarriedAdam(model.named_parameters(), self.inner_lr, betas=(0.0, 0.999))
        return fewstep.reptile(
            model, fewstep.cross_entropy, rule, self.steps, inner_batch=self.inner_batch,
            adapts=self.adapts(model), compile=compile,
        )  # fmt: skip


_OMNIGLOT = {
    "batch": {(5, 1): (0.9768, None), (5, 5): (0.9948, None), (20, 1): (0.8943, None), (20, 5): (0.9712, None)},
    "support": {(5, 1): (0.9539, None), (5, 5): (0.9890, None), (20, 1): (0.8814, None), (20, 5): (0.9665, None)},
}
_MINI_IMAGENET = {
    "batch": {1: (0.4997, 0.0032), 5: (0.6599, 0.0058)},
    "support": {1: (0.4707, 0.0026), 5: (0.6274, 0.0037)},
}


def _under(norm: str, **words: str) -> list[Row]:
    """All rows under a normalisation policy: the paper prints numbers with and without transduction."""
    every: dict[str, Any] = {"norm": norm, "optimizer": "sgd", "outer_lr": 1.0, **words}
    paper: dict[str, Any] = {"source": REPTILE, "meta_batch": 5, **every}
    numbers, five, twenty = _OMNIGLOT[norm], Reptile(inner_batch=10), Reptile(5e-4, 10, inner_batch=20)
    mini, budget = Reptile(steps=8, inner_batch=10), Reptile(inner_batch=10, adapts_norms=True)
    return [
        *omniglot(five, numbers, ways=(5,), shots=10, iterations=100_000, **paper),
        *omniglot(twenty, numbers, ways=(20,), shots=10, iterations=200_000, **paper),
        *mini_imagenet(mini, _MINI_IMAGENET[norm], shots=15, iterations=100_000, training={}, **paper),
        *equal_budget(budget, shots=10, meta_batch=8, iterations=16_000, **every),
    ]


ROWS = [*_under("batch"), *_under("support", label="reptile-support", summary="Reptile, not transductive")]

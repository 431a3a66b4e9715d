"""Meta-LSTM (Ravi and Larochelle 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

import fewstep
from fewstep.experiments.few_shot.experiment import FewShot, Method
from fewstep.experiments.few_shot.gradient import adapted_names
from fewstep.experiments.few_shot.networks import AnyNetwork
from fewstep.experiments.few_shot.protocols import META_LSTM, equal_budget, mini_imagenet
from fewstep.experiments.option_types import Number


@dataclass(frozen=True)
class MetaLSTM(Method):
    """An LSTM is the inner optimiser, and is learned together with the initial parameters."""

    name = "meta-lstm"
    summary = "Meta-LSTM: a learned optimiser"
    training: ClassVar[dict[str, Any]] = {"clip_norm": 0.25}

    steps: Number = 8
    """Inner steps in training."""
    test_steps: Number = 8
    """Inner steps at test."""
    adapts_norms: bool = False
    """Whether the inner loop moves the norms' scales and shifts."""

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        # One by one 1.6 times as fast as under vmap: what its LSTM keeps for the backward pass exceeds a CPU's caches.
        vectorize: Any = "auto" if compile else False
        adapts = adapted_names(model, self.adapts_norms)
        return fewstep.meta_lstm(
            model, fewstep.cross_entropy, self.steps, adapts=adapts, vectorize=vectorize, compile=compile
        )


ROWS = [
    *mini_imagenet(MetaLSTM(12, 12), {1: (0.4344, 0.0077)}, META_LSTM, k_shots=(1,), training={}),
    *mini_imagenet(MetaLSTM(), {5: (0.6060, 0.0071)}, META_LSTM, k_shots=(5,), training={}),
    *equal_budget(MetaLSTM(adapts_norms=True), outer_lr=1e-3, filters=32),
]

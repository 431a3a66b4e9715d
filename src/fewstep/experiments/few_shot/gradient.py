"""Options that methods with inner gradient steps have in common."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fewstep.experiments.few_shot.experiment import Method
from fewstep.experiments.option_types import NonNegative, Number


@dataclass(frozen=True)
class GradientMethod(Method):
    """A method whose inner loop takes gradient steps."""

    inner_lr: NonNegative = 2.0
    """Step size of the inner loop, for the mean cross-entropy: N times that of the MAML paper, which divides by K."""
    steps: Number = 1
    """Inner steps in training."""
    test_steps: Number = 3
    """Inner steps at test."""


@dataclass(frozen=True)
class WholeNetworkMethod(GradientMethod):
    """One whose inner loop moves all of the network."""

    adapts_norms: bool = False
    """Whether the inner loop moves the norms' scales and shifts."""

    def adapts(self, model: nn.Module) -> str | list[str]:
        """The option ``adapts`` of `MetaLearner`."""
        return adapted_names(model, self.adapts_norms)


def adapted_names(model: nn.Module, norms: bool) -> str | list[str]:
    """Name patterns of all parameters; those of normalisation layers only with ``norms``."""
    has_norms = any(".norm." in name for name, _ in model.named_parameters())
    return ["*", "!*.norm.*"] if has_norms and not norms else "*"

"""Parts of the inner loop of a policy that depend on the step: its episodes and the factor on its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from fewstep.adaptation import Rule
from fewstep.adaptation.rules import Params
from fewstep.models.context import current_step
from fewstep.rl.trajectories import Trajectories


class OfCurrentStep(nn.Module):
    """The inner loss on the episodes of the current step.

    Args:
        loss: ``loss(policy, trajectories) -> scalar``.
    """

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, policy: nn.Module, trajectories: Trajectories) -> Tensor:
        """The loss on one step of ``trajectories``, ``[steps, episodes, time, ...]``."""
        return self.loss(policy, trajectories[current_step() or 0])


class Scaled:
    """A rule with a factor on the gradient of each step.

    Args:
        rule: the rule.
        scales: the factors of the first, second, ... step; the last one also applies to later steps.
    """

    def __init__(self, rule: Rule, scales: Sequence[float]) -> None:
        self.rule, self.scales = rule, scales

    def init(self, params: Params) -> Any:
        return self.rule.init(params)

    def update(self, params: Params, grads: Params, state: Any, step: int, loss: Tensor) -> tuple[Params, Any]:
        scale = self.scales[min(step, len(self.scales) - 1)]
        return self.rule.update(params, {name: scale * g for name, g in grads.items()}, state, step, loss)

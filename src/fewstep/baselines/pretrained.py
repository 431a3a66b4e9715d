"""Pretraining baseline: one network on all tasks, fine-tuned at test (MAML, section 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fewstep.adaptation import GradientDescent
from fewstep.learner import MetaLearner


def pretrained(
    model: nn.Module, loss: Callable[..., Tensor], fine_tuning_lr: float, **choices: Any
) -> MetaLearner[Any]:
    """Joint training on all tasks: MAML with no inner step. At test, gradient descent at ``fine_tuning_lr``.

    The oracle of the paper is the same with the task's parameters among the inputs.

    Args:
        model: any ``nn.Module``.
        loss: ``loss(model, batch) -> scalar``.
        fine_tuning_lr: learning rate of the steps at test; the paper tunes it.
        **choices: any other argument of [`MetaLearner`][fewstep.MetaLearner].
    """
    return MetaLearner(model, loss, rule=GradientDescent(fine_tuning_lr), steps=0, **choices)

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
    """A learner that is trained jointly on all tasks, and fine-tuned by gradient descent at test (MAML, section 5.1).

    This is MAML without inner steps. The paper's oracle is the same with the task's parameters as additional inputs.

    Args:
        model: any ``nn.Module``.
        loss: ``loss(model, batch) -> scalar``.
        fine_tuning_lr: the learning rate of the steps at test, which the paper tunes.
        **choices: other arguments of [`MetaLearner`][fewstep.MetaLearner].

    Examples:
        >>> import fewstep
        >>> learner = pretrained(fewstep.models.MLP(1, [8], 1), fewstep.mse, fine_tuning_lr=0.01)
        >>> learner.meta_loss(fewstep.tasks.Sinusoids().sample(25)).backward()
    """
    return MetaLearner(model, loss, rule=GradientDescent(fine_tuning_lr), steps=0, **choices)

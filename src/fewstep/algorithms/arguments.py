"""What the algorithms share: types of their arguments, and the parameters that an argument selects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

from fewstep.learner import select
from fewstep.learner.checks import check_model

Model = TypeVar("Model", bound=nn.Module)
ModelLoss = Callable[..., Tensor]
"""``loss(model, batch) -> scalar``."""

RULE_HINT = "for another rule use fewstep.MetaLearner(rule=...)"


def trainable_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of a model that require a gradient, by name."""
    check_model(model)
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def adapted_parameters(model: nn.Module, choices: Any) -> dict[str, Tensor]:
    """The parameters that ``choices["adapts"]`` selects, all trainable ones by default."""
    params = trainable_parameters(model)
    return {name: params[name] for name in select(choices.get("adapts", "*"), params, "adapts")}

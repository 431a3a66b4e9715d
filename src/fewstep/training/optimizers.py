"""The optimiser of the outer loop: the default, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fewstep.learner.checks import check_instance

LEARNING_RATE = 1e-3
"""Of the default optimiser."""


def default_optimizer(learner: nn.Module) -> torch.optim.Optimizer:
    """Adam with a learning rate of 1e-3 over the learner's parameters that require gradients.

    Raises:
        ValueError: there are none.
    """
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("fit: no parameter of the learner requires a gradient, so there is nothing to train.")
    return torch.optim.Adam(parameters, LEARNING_RATE)


def check_optimizer(optimizer: Any, learner: nn.Module, clipping: Mapping[str, float | None]) -> None:
    """Checks that an optimiser can train a learner.

    Args:
        optimizer: should have `param_groups` with parameters of the learner, or `meta_step`.
        learner: what is to be trained.
        clipping: the options of `fit` that clip the meta-gradient, which an optimiser with `meta_step` does not have.

    Raises:
        TypeError: it is not an optimiser, or it is a class instead of an object.
        ValueError: it holds none of the learner's parameters, or clipping does not apply.
    """
    example = "torch.optim.Adam(learner.parameters(), 1e-3)"
    check_instance(optimizer, "optimizer", example)
    if hasattr(optimizer, "meta_step"):
        given = [name for name, value in clipping.items() if value is not None]
        if given:
            raise ValueError(
                f"fit: {' and '.join(given)} does not apply to {type(optimizer).__name__}, which takes its own steps "
                "instead of a meta-gradient."
            )
        return
    if not hasattr(optimizer, "param_groups"):
        raise TypeError(f"fit: pass an optimiser, such as {example}; got {type(optimizer).__name__}.")
    own = {id(parameter) for parameter in learner.parameters()}
    if own and not any(id(value) in own for group in optimizer.param_groups for value in group["params"]):
        kind, rate = type(optimizer), optimizer.param_groups[0].get("lr")
        prefix = "torch.optim." if kind.__module__.startswith("torch.optim") else ""
        rate = f", lr={rate:g}" if isinstance(rate, float) else ""
        raise ValueError(
            "fit: none of the optimiser's parameters belongs to the learner, so nothing would be trained. A learner "
            "trains its own copy of the model, not the model it was made from. Write:\n\n"
            f"    optimizer = {prefix}{kind.__name__}(learner.parameters(){rate})"
        )

"""Which optimisers :func:`fewstep.fit` takes."""

from __future__ import annotations

from typing import Any

from torch import nn

from fewstep.learner.checks import check_instance


def check_optimizer(optimizer: Any, learner: nn.Module) -> None:
    """Raises if an optimiser cannot train a learner.

    Args:
        optimizer: should have ``param_groups`` with parameters of the learner, or ``meta_step``.
        learner: what is to be trained.

    Raises:
        TypeError: it is no optimiser, or the class of one.
        ValueError: it holds none of the learner's parameters.
    """
    example = "torch.optim.Adam(learner.parameters(), 1e-3)"
    check_instance(optimizer, "optimizer", example)
    if hasattr(optimizer, "meta_step"):
        return
    if not hasattr(optimizer, "param_groups"):
        raise TypeError(f"fit: pass an optimiser, such as {example}; got {type(optimizer).__name__}.")
    own = {id(parameter) for parameter in learner.parameters()}
    if own and not any(id(value) in own for group in optimizer.param_groups for value in group["params"]):
        raise ValueError(
            "fit: the optimiser holds none of the learner's parameters, so that nothing would be learned. A learner "
            "copies the model that it is made of; make the optimiser of learner.parameters()."
        )

"""Modules that are called again in a backward pass, as by activation checkpointing, in their original context."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

from torch import nn

from fewstep.adaptation.operations import twice_differentiable

_inside: ContextVar[bool] = ContextVar("inside", default=False)


def evaluated(loss: Callable[..., Any], model: nn.Module, batch: Any, reenters: bool) -> Any:
    """Evaluate ``loss(model, batch)`` with twice-differentiable operations.

    Args:
        loss: a function of a model and a batch.
        model: a stand-in.
        batch: the data.
        reenters: whether the model's modules are called again later. Later calls then run in the context of this one:
            with the same replaced operations, inner step and statistics.
    """
    if not reenters:
        with twice_differentiable():
            return loss(model, batch)
    token = _inside.set(True)
    try:
        context = copy_context()
        for module in model.modules():
            if not hasattr(module.forward, "reenters"):
                module.__dict__["forward"] = _again(module.forward, context)
        with twice_differentiable():
            return loss(model, batch)
    finally:
        _inside.reset(token)


def _again(forward: Callable[..., Any], context: Context) -> Callable[..., Any]:
    def within(*args: Any, **kwargs: Any) -> Any:
        with twice_differentiable():
            return forward(*args, **kwargs)

    @functools.wraps(forward)
    def again(*args: Any, **kwargs: Any) -> Any:
        if _inside.get():
            return forward(*args, **kwargs)
        return context.copy().run(within, *args, **kwargs)

    again.reenters = True  # type: ignore[attr-defined]
    return again

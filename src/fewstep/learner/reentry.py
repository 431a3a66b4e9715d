"""Modules that are called again in a backward pass, as activation checkpointing does, find what was around the loss."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

from torch import nn

from fewstep.adaptation.operations import twice_differentiable

_inside: ContextVar[bool] = ContextVar("inside", default=False)


def evaluated(loss: Callable[..., Any], model: nn.Module, batch: Any, reenters: bool) -> Any:
    """``loss(model, batch)`` with twice differentiable operations.

    Args:
        loss: of a model and a batch.
        model: a stand-in.
        batch: the data.
        reenters: whether modules are called again later. They then run as they do here: with the same operations, at
            the same inner step, beside the same statistics.
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

"""Losses and metrics of one task: functions of (model, batch) that honour the weights of padded examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewstep.tasks import Batch

Scalar = Float[Tensor, ""]
"""A tensor of no dimensions."""


def mse(model: Callable[[Any], Tensor], batch: Batch) -> Scalar:
    """Mean squared error over examples and output features (MAML, equation 2).

    Args:
        model: called with ``batch.x``.
        batch: ``y`` has exactly the shape of the prediction, ``[examples, ...]``.

    Raises:
        ValueError: prediction and target differ in shape (they would be broadcast against each other).

    >>> import torch
    >>> mse(torch.zeros_like, Batch(torch.zeros(3, 1), torch.full((3, 1), 2.0))).item()
    4.0
    """
    prediction = model(_of(batch, "mse").x)
    if prediction.shape != batch.y.shape:
        raise ValueError(
            f"mse expects targets of the prediction's shape {tuple(prediction.shape)}; "
            f"got batch.y of shape {tuple(batch.y.shape)}. Reshape one of them, e.g. batch.y[..., None]."
        )
    squared = (prediction - batch.y).square()
    return squared.mean() if batch.weight is None else _mean(squared.flatten(1).mean(1), batch.weight)


def cross_entropy(model: Callable[[Any], Tensor], batch: Batch) -> Scalar:
    """Mean cross-entropy of class logits (MAML, equation 3, divided by the number of examples).

    The reference code of MAML divides its sum by the shots K only, so that its inner learning rates are to be
    multiplied by the number of ways N for this loss.

    Args:
        model: maps ``batch.x`` to logits, ``[examples, classes]``.
        batch: ``y`` holds class indices (int64), ``[examples]``.

    >>> import torch
    >>> round(cross_entropy(lambda x: torch.zeros(2, 5), Batch(torch.zeros(2, 1), torch.tensor([0, 4]))).item(), 3)
    1.609
    """
    logits = _logits(model, batch, "cross_entropy")
    if batch.weight is None:
        return functional.cross_entropy(logits, batch.y)
    return _mean(functional.cross_entropy(logits, batch.y, reduction="none"), batch.weight)


class supervised(nn.Module):  # noqa: N801 - reads as a function where it is used, beside mse
    """Makes a loss of ``(prediction, target)``, such as PyTorch's, a loss of ``(model, batch)``.

    Args:
        loss: a function or an ``nn.Module``; it is called with ``model(batch.x)`` and ``batch.y`` and gives a scalar. A
            module with parameters of its own is a learned loss where it is the inner loss.

    Raises:
        ValueError: the batch has weights, of padded examples for instance, which such a loss cannot honour.

    >>> import torch
    >>> huber = supervised(torch.nn.functional.huber_loss)
    >>> huber(torch.zeros_like, Batch(torch.zeros(3, 1), torch.ones(3, 1))).item()
    0.5
    """

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        if isinstance(loss, type):
            raise TypeError(f"supervised: pass an object of the class {loss.__name__}: supervised({loss.__name__}()).")
        self.loss = loss
        self.__name__ = getattr(loss, "__name__", type(loss).__name__)

    def forward(self, model: Callable[[Any], Tensor], batch: Batch) -> Tensor:
        if _of(batch, "supervised").weight is not None:
            raise ValueError(
                "supervised: a loss of (prediction, target) cannot honour Batch.weight, which marks padded examples. "
                "Stack tasks of equal sizes, pass a list of tasks, or write a loss of (model, batch) that weights each "
                "example, as fewstep.mse does."
            )
        return self.loss(model(batch.x), batch.y)


def accuracy(model: Callable[[Any], Tensor], batch: Batch) -> Scalar:
    """Fraction of examples whose largest logit is at the right class, between 0 and 1.

    Args:
        model: maps ``batch.x`` to logits, ``[examples, classes]``.
        batch: ``y`` holds class indices (int64), ``[examples]``.

    >>> import torch
    >>> accuracy(lambda x: torch.eye(2), Batch(torch.zeros(2, 1), torch.tensor([0, 0]))).item()
    0.5
    """
    logits = _logits(model, batch, "accuracy")
    correct = (logits.argmax(-1) == batch.y).to(logits.dtype)
    return correct.mean() if batch.weight is None else _mean(correct, batch.weight)


def _of(batch: Any, name: str) -> Batch:
    if not isinstance(batch, Batch):
        raise TypeError(f"{name} takes a fewstep.Batch(x, y); got {type(batch).__name__}. Make the sets of a task so.")
    return batch


def _logits(model: Callable[[Any], Tensor], batch: Batch, name: str) -> Tensor:
    logits = model(_of(batch, name).x)
    if logits.ndim != 2 or batch.y.ndim != 1 or logits.shape[0] != batch.y.shape[0] or batch.y.is_floating_point():
        raise ValueError(
            f"{name} expects logits [examples, classes] and integer class labels [examples]; "
            f"got {tuple(logits.shape)} and {tuple(batch.y.shape)} of {batch.y.dtype}."
        )
    return logits


def _mean(per_example: Tensor, weight: Tensor) -> Tensor:
    return (per_example * weight).sum() / weight.sum()

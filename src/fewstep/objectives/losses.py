"""Losses and metrics of one task: functions of (model, batch) that respect the weights of padded examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewstep.arguments import check_function
from fewstep.tasks import Batch

Scalar = Float[Tensor, ""]
"""A scalar tensor."""


def mse(model: Callable[[Any], Tensor], batch: Batch) -> Scalar:
    """Mean squared error over examples and output features (MAML, equation 2).

    Args:
        model: called with ``batch.x``.
        batch: a [`Batch`][fewstep.tasks.Batch] whose ``y`` has exactly the shape of the prediction, ``[examples,
            ...]``.

    Returns:
        The error, a scalar tensor.

    Raises:
        TypeError: ``batch`` is not a [`Batch`][fewstep.tasks.Batch].
        ValueError: prediction and target differ in shape. They would be broadcast against each other otherwise.

    Examples:
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

    The authors' code of MAML divides the sum over the N·K examples by K only. To reproduce its results with this loss,
    multiply its inner learning rates by the number of ways N.

    Args:
        model: maps ``batch.x`` to logits, ``[examples, classes]``.
        batch: a [`Batch`][fewstep.tasks.Batch] whose ``y`` holds class indices (int64), ``[examples]``.

    Returns:
        The loss in nats, a scalar tensor.

    Raises:
        TypeError: ``batch`` is not a [`Batch`][fewstep.tasks.Batch].
        ValueError: logits or labels have the wrong shape or dtype.

    Examples:
        >>> import torch
        >>> round(cross_entropy(lambda x: torch.zeros(2, 5), Batch(torch.zeros(2, 1), torch.tensor([0, 4]))).item(), 3)
        1.609
    """
    logits = _logits(model, batch, "cross_entropy")
    if batch.weight is None:
        return functional.cross_entropy(logits, batch.y)
    return _mean(functional.cross_entropy(logits, batch.y, reduction="none"), batch.weight)


class supervised(nn.Module):  # noqa: N801 - reads as a function where it is used, beside mse
    """Turn a loss of ``(prediction, target)``, such as those of PyTorch, into a loss of ``(model, batch)``.

    Args:
        loss: a function or an ``nn.Module`` that is called with ``model(batch.x)`` and ``batch.y`` and gives a scalar.
            Its parameters are learned if it is the ``inner_loss`` of a learner.

    Raises:
        TypeError: a class was passed instead of an object; or, when it is called, the batch is not a
            [`Batch`][fewstep.tasks.Batch].
        ValueError: when it is called, the batch has weights (padded examples), which ``loss`` would ignore.

    Examples:
        >>> import torch
        >>> huber = supervised(torch.nn.functional.huber_loss)
        >>> huber(torch.zeros_like, Batch(torch.zeros(3, 1), torch.ones(3, 1))).item()
        0.5
    """

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        if isinstance(loss, type):
            raise TypeError(f"supervised: pass an object of the class {loss.__name__}: supervised({loss.__name__}()).")
        check_function("supervised", "a function of (prediction, target)", loss=loss)
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
    """Fraction of examples whose largest logit is that of the right class, between 0 and 1.

    Args:
        model: maps ``batch.x`` to logits, ``[examples, classes]``.
        batch: a [`Batch`][fewstep.tasks.Batch] whose ``y`` holds class indices (int64), ``[examples]``.

    Returns:
        The accuracy, a scalar tensor.

    Raises:
        TypeError: ``batch`` is not a [`Batch`][fewstep.tasks.Batch].
        ValueError: logits or labels have the wrong shape or dtype.

    Examples:
        >>> import torch
        >>> accuracy(lambda x: torch.eye(2), Batch(torch.zeros(2, 1), torch.tensor([0, 0]))).item()
        0.5
    """
    logits = _logits(model, batch, "accuracy")
    correct = (logits.argmax(-1) == batch.y).to(logits.dtype)
    return correct.mean() if batch.weight is None else _mean(correct, batch.weight)


def _of(batch: Any, name: str) -> Batch:
    if not isinstance(batch, Batch):
        raise TypeError(
            f"{name} takes a fewstep.Batch(x, y); got {type(batch).__name__}. "
            "Make the support and query sets of the tasks with fewstep.Batch."
        )
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

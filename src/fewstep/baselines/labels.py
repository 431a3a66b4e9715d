"""Checks of the labels of a few-shot task, and the membership of examples in classes."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewstep.tasks import Batch, Task


def memberships(batch: Batch, ways: int, like: Tensor) -> Float[Tensor, "examples ways"]:
    """The weight of each example in each class: its own weight in the column of its label, 0 elsewhere.

    A product with this matrix sums over the examples of each class.

    Args:
        batch: a batch with labels ``y``, ``[examples]``.
        ways: the number of classes.
        like: a tensor of the dtype of the result.

    Examples:
        >>> memberships(Batch(None, torch.tensor([1, 0])), ways=3, like=torch.zeros(1))
        tensor([[0., 1., 0.],
                [1., 0., 0.]])
    """
    members = (batch.y[:, None] == torch.arange(ways, device=batch.y.device)).to(like.dtype)
    return members if batch.weight is None else members * batch.weight[:, None]


def class_means(values: Tensor, members: Tensor) -> Tensor:
    """The mean over the examples of each class, ``[..., examples]`` to ``[..., ways]``."""
    return values @ members / members.sum(0)


def check_tasks(tasks: Any, ways: int) -> None:
    """Raise unless these are few-shot classification tasks with a leading task axis."""
    if not isinstance(tasks, Task):
        raise TypeError(f"Expected a fewstep.tasks.Task with a leading task axis; got {type(tasks).__name__}.")
    check_labels(tasks.support, ways, "support", axes=2, every_class=True)
    check_labels(tasks.query, ways, "query", axes=2)
    support, query = tasks.support.x.shape, tasks.query.x.shape
    if support[0] != query[0] or support[2:] != query[2:]:
        raise ValueError(
            "Support and query sets must have the same number of tasks and image shape; got x of shape "
            f"{tuple(support)} and {tuple(query)}; expected [tasks, examples, ...]."
        )


def check_labels(batch: Any, ways: int, name: str, axes: int, every_class: bool = False) -> None:
    """Raise unless ``y`` holds integers from 0 to ways − 1, one per image.

    Args:
        batch: the batch to check.
        ways: the number of classes.
        name: ``"support"`` or ``"query"``, for the message.
        axes: the number of axes of ``y``: 1, or 2 with a task axis.
        every_class: whether every task needs an example of every class, not counting padding.
    """
    if not isinstance(batch, Batch):
        raise TypeError(f"The {name} set must be a fewstep.tasks.Batch; got {type(batch).__name__}.")
    x, y = batch.x, batch.y
    if y.ndim != axes or x.shape[:axes] != y.shape or y.is_floating_point() or y.numel() == 0:
        shape = "[tasks, examples]" if axes == 2 else "[examples]"
        raise ValueError(
            f"The {name} set needs images {shape[:-1]}, ...] and class labels {shape} of int64, at least one of them; "
            f"got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)} and {y.dtype}."
        )
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= ways:
        raise ValueError(
            f"Labels of the {name} set must be from 0 to {ways - 1} (ways={ways}); got {low} to {high}. "
            "Number the classes of each task from 0, or change ways."
        )
    if every_class:
        counts = (y[..., None] == torch.arange(ways, device=y.device)).to(torch.get_default_dtype())
        if batch.weight is not None:
            counts = counts * batch.weight[..., None]
        missing = (counts.sum(-2) <= 0).nonzero()
        if len(missing):
            raise ValueError(
                f"The {name} set has no example of class {int(missing[0, -1])}; a task of {ways} ways needs at least "
                f"one example of each class from 0 to {ways - 1}."
            )


def check_padding(learner: nn.Module, *batches: Batch) -> None:
    """Raise if padded examples would enter the statistics of batch normalisation."""
    if not any(batch.weight is not None and bool((batch.weight == 0).any()) for batch in batches):
        return
    norms = [name for name, module in learner.named_modules() if isinstance(module, _BatchNorm)]
    if norms:
        raise ValueError(
            f"Padded examples (Batch.weight 0) would enter the statistics of batch normalisation ({norms[0]}). Use "
            "GroupNorm or LayerNorm, or tasks of equal sizes."
        )

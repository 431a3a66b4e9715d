"""Which task of a meta-batch has data, a loss or a gradient that is NaN or infinite."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fewstep.adaptation.random_numbers import replayed
from fewstep.learner import Learner
from fewstep.parallel import alone
from fewstep.tasks.trees import tensors

SETS = ("support", "query")


def has_bad_data(tasks: Any) -> bool:
    """Whether the data of a meta-batch hold NaN or infinity."""
    return not all(_finite(leaf) for leaf in tensors(tasks))


def bad_task(learner: Any, tasks: Any) -> str:
    """A sentence that names the first bad task of a meta-batch and what is bad in it.

    The data are checked first, then the tasks are evaluated one by one.

    Args:
        learner: the learner.
        tasks: the meta-batch.
    """
    try:
        number = len(tasks)
        with alone():
            found = _bad_data(tasks) or _bad_losses(learner, tasks)
    except Exception as error:  # the evaluation of one task may raise what it finds
        return f"Evaluating the tasks one by one ends with: {str(error).rstrip('.')}."
    if not found:
        return "Each task alone has a finite loss and gradient."
    first, words = found[0]
    if len(found) == number > 1:
        return f"Every task {words}: the parameters are bad, not the data."
    others = f" So have {len(found) - 1} others." if len(found) > 1 else ""
    return f"Task {first} of {number} (counted from 0) {words}.{others}"


def _bad_data(tasks: Any) -> list[tuple[int, str]]:
    return [
        (i, f"has NaN or infinity in {place} of its {part} set")
        for i in range(len(tasks))
        for part in SETS
        for place, leaf in _named(getattr(tasks[i], part, None))
        if not _finite(leaf)
    ][:1]


def _bad_losses(learner: Any, tasks: Any) -> list[tuple[int, str]]:
    found = []
    for i in range(len(tasks)):
        with replayed():
            words = _bad_loss(learner, tasks[i : i + 1])
        if words:
            found.append((i, words))
    return found


def _bad_loss(learner: Any, alone: Any) -> str | None:
    """What is NaN or infinite in a meta-batch of one task."""
    choices = getattr(learner, "_choices", None)
    with torch.no_grad():
        if choices is not None and not _finite(choices.inner(choices.params(), alone[0].support)):
            return "has a loss of its support set that is NaN or infinite"
    loss = learner(alone) if isinstance(learner, Learner) else learner.meta_loss(alone)  # forward is not compiled
    if not _finite(loss.detach()):
        return "has a loss of its query set that is NaN or infinite after adaptation to its support set"
    learned = [value for value in learner.parameters() if value.requires_grad]
    gradients = torch.autograd.grad(loss, learned, allow_unused=True)
    if not all(_finite(gradient) for gradient in gradients if gradient is not None):
        return "has a gradient that is NaN or infinite, with finite losses"
    return None


def _named(data: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a set of examples, each with the name of its field."""
    if dataclasses.is_dataclass(data):
        for field in dataclasses.fields(data):
            for leaf in tensors(getattr(data, field.name)):
                yield field.name, leaf
    else:
        for leaf in tensors(data):
            yield "the data", leaf


def _finite(value: Tensor) -> bool:
    return not (value.is_floating_point() or value.is_complex()) or bool(torch.isfinite(value).all())

"""A function of every task of a meta-batch, at once where the model allows it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map

from fewstep.adaptation.random_numbers import replayed
from fewstep.tasks import Task


class EachTask:
    """``function`` of each task, stacked: under vmap, or one by one where vmap does not support the model.

    Either way every task goes through the model by itself, so that batch norm never mixes tasks. Which of the two is
    settled by the first call.

    >>> from fewstep.tasks import Sinusoids
    >>> EachTask()(lambda task: task.query.x.mean(), Sinusoids().sample(7)).shape
    torch.Size([7])
    """

    def __init__(self) -> None:
        self._vmaps: bool | None = None

    def __call__(self, function: Callable[[Task], Any], tasks: Task) -> Any:
        if self._vmaps is None:
            with replayed():  # a resumed run tries again, and must draw the same numbers as one that was not stopped
                self._vmaps = _supports_vmap(function, tasks)
        if self._vmaps:
            return torch.vmap(function, randomness="different")(tasks)
        found = [function(tasks[i]) for i in range(len(tasks))]
        return tree_map(lambda *values: torch.stack(values), *found)


def _supports_vmap(function: Callable[[Task], Any], tasks: Task) -> bool:
    with torch.no_grad():
        try:
            torch.vmap(function, randomness="different")(tasks[:1])
        except (RuntimeError, ValueError) as error:
            function(tasks[0])  # raises what is wrong with the task, if it is not vmap
            reason = str(error).strip().splitlines()[0]
            warnings.warn(
                f"Looping over tasks: the model does not run under torch.vmap ({reason}).",
                stacklevel=4,  # the caller of meta_loss or score
            )
            return False
    return True

"""A function of every task of a meta-batch, at once where that is possible and pays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fewstep.adaptation.random_numbers import replayed
from fewstep.learner import VMAP_LIMIT
from fewstep.learner.gradients import accumulate
from fewstep.learner.meta_learner import tasks_on_cpu
from fewstep.tasks import Task


class EachTask:
    """``function`` of each task, stacked: under vmap, or one by one.

    Either way every task goes through the model by itself, so that batch norm never mixes tasks. The first call
    settles it, as :class:`fewstep.MetaLearner` does: a loop where vmap does not support the model, or, on a CPU, where
    one task keeps more than ``VMAP_LIMIT`` bytes for its backward pass.

    >>> from fewstep.tasks import Sinusoids
    >>> EachTask()(lambda task: task.query.x.mean(), Sinusoids().sample(7)).shape
    torch.Size([7])
    """

    def __init__(self) -> None:
        self._vmaps: bool | None = None

    def __call__(self, function: Callable[[Task], Any], tasks: Task) -> Any:
        if self._at_once(function, tasks):
            return torch.vmap(function, randomness="different")(tasks)
        found = [function(tasks[i]) for i in range(len(tasks))]
        return tree_map(lambda *values: torch.stack(values), *found)

    def mean(self, function: Callable[[Task], Tensor], tasks: Task, parameters: Iterable[Tensor]) -> Tensor:
        """The mean of a loss over tasks, ready for ``backward()``.

        In a loop each task's gradient for the parameters is worked out before the next task is begun, so that memory
        does not grow with the meta-batch.
        """
        if self._at_once(function, tasks) or not torch.is_grad_enabled():
            return self(function, tasks).mean()
        learned = [value for value in parameters if value.requires_grad]
        return accumulate([partial(function, tasks[i]) for i in range(len(tasks))], learned, 1 / len(tasks))

    def _at_once(self, function: Callable[[Task], Any], tasks: Task) -> bool:
        if self._vmaps is None:
            with replayed():  # a resumed run looks again, and must draw the same numbers as one that was not stopped
                small = not tasks_on_cpu(tasks) or _saved_bytes(function, tasks[0]) <= VMAP_LIMIT
                self._vmaps = small and _supports_vmap(function, tasks)
        return self._vmaps


def _saved_bytes(function: Callable[[Task], Any], task: Task) -> int:
    """What one task keeps for its backward pass."""
    saved = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(task)
    return sum(saved)


def _supports_vmap(function: Callable[[Task], Any], tasks: Task) -> bool:
    with torch.no_grad():
        try:
            torch.vmap(function, randomness="different")(tasks[:1])
        except (RuntimeError, ValueError) as error:
            function(tasks[0])  # raises what is wrong with the task, if it is not vmap
            reason = str(error).strip().splitlines()[0]
            warnings.warn(
                f"Looping over tasks: the model does not run under torch.vmap ({reason}).",
                stacklevel=5,  # the caller of meta_loss or score
            )
            return False
    return True

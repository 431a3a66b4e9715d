"""A function of every task of a meta-batch: at once where that is possible and pays, in chunks, or one by one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves, tree_map

from fewstep.adaptation.random_numbers import replayed
from fewstep.learner.gradients import accumulate
from fewstep.tasks import Task

VMAP_LIMIT = 9 * 2**19  # 4.5 MiB: benchmarks/vectorize.py
"""On a CPU, tasks whose loss keeps more bytes than this for its backward pass are looped over, not vmapped."""


class EachTask:
    """``function`` of each task, stacked: under vmap, or one by one.

    Either way every task goes through the model by itself, so that batch norm never mixes tasks.

    Args:
        vectorize: ``True``: all tasks at once (vmap); ``False``: a loop; ``"auto"``: a loop where vmap does not
            support the function, or, on a CPU, where one task keeps more than ``VMAP_LIMIT`` bytes for its backward
            pass; vmap otherwise. The first call settles it.
        chunk: at most this many tasks at once under vmap; memory then does not grow with the meta-batch.

    >>> from fewstep.tasks import Sinusoids
    >>> EachTask()(lambda task: task.query.x.mean(), Sinusoids().sample(7)).shape
    torch.Size([7])
    """

    def __init__(self, vectorize: bool | str = "auto", chunk: int | None = None) -> None:
        if vectorize not in (True, False, "auto"):
            raise ValueError(f'vectorize must be True, False or "auto"; got {vectorize!r}.')
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be None or at least 1; got {chunk}.")
        self.chunk = chunk
        self.vmaps = None if vectorize == "auto" else bool(vectorize)
        """Whether tasks go through the model at once; ``None`` before that is settled."""

    def __call__(self, function: Callable[[Task], Any], tasks: Task) -> Any:
        self.settle(function, tasks)
        found = [self.at_once(function, part) for part in self.parts(tasks)]
        return found[0] if len(found) == 1 else tree_map(lambda *values: torch.cat(values), *found)

    def mean(self, function: Callable[[Task], Tensor], tasks: Task, parameters: Iterable[Tensor]) -> Tensor:
        """The mean of a loss over tasks, ready for ``backward()``.

        Where tasks are taken in parts, each part's gradient for the parameters is worked out before the next is begun,
        so that memory does not grow with the meta-batch.
        """
        self.settle(function, tasks)
        parts = self.parts(tasks)
        if len(parts) == 1 or not torch.is_grad_enabled():
            return torch.cat([self.at_once(function, part) for part in parts]).mean()
        sums = [partial(self._sum, function, part) for part in parts]
        return accumulate(sums, [value for value in parameters if value.requires_grad], 1 / len(tasks))

    def at_once(self, function: Callable[[Task], Any], tasks: Task) -> Any:
        """Of all tasks, without chunks; under vmap if it has been settled so."""
        if self.vmaps:
            return torch.vmap(function, randomness="different")(tasks)
        found = [function(tasks[i]) for i in range(len(tasks))]
        return tree_map(lambda *values: torch.stack(values), *found)

    def settle(self, function: Callable[[Task], Any], tasks: Task, saved: int | None = None) -> None:
        """Chooses, if that has not been done; ``saved`` are the bytes that one task keeps, where they are known."""
        if self.vmaps is None:
            with replayed():  # a resumed run looks again, and must draw the same numbers as one that was not stopped
                small = not on_cpu(tasks) or (_saved(function, tasks[0]) if saved is None else saved) <= VMAP_LIMIT
                self.vmaps = small and _supports_vmap(function, tasks)

    def parts(self, tasks: Task) -> list[Task]:
        """The parts of a meta-batch that are taken at once: all of it, chunks, or tasks one by one."""
        size = (self.chunk or len(tasks)) if self.vmaps else 1
        return [tasks] if size >= len(tasks) else [tasks[i : i + size] for i in range(0, len(tasks), size)]

    def _sum(self, function: Callable[[Task], Tensor], tasks: Task) -> Tensor:
        return self.at_once(function, tasks).sum()


class SavedBytes(saved_tensors_hooks):
    """Inside, counts the bytes that autograd keeps for the backward pass."""

    def __init__(self) -> None:
        super().__init__(self._note, lambda tensor: tensor)
        self.count = 0

    def _note(self, tensor: Tensor) -> Tensor:
        self.count += tensor.numel() * tensor.element_size()
        return tensor


def on_cpu(tasks: Task) -> bool:
    """Whether the tensors of a meta-batch are on a CPU."""
    return bool(tree_leaves(tasks)[0].device.type == "cpu")


def _saved(function: Callable[[Task], Any], task: Task) -> int:
    saved = SavedBytes()
    with torch.enable_grad(), saved:
        function(task)
    return saved.count


def _supports_vmap(function: Callable[[Task], Any], tasks: Task) -> bool:
    with torch.no_grad():
        try:
            torch.vmap(function, randomness="different")(tasks[:1])
        except (RuntimeError, ValueError) as error:
            function(tasks[0])  # raises what is wrong with the task, if it is not vmap
            reason = str(error).strip().splitlines()[0]
            warnings.warn(
                f"Looping over tasks: the model does not run under torch.vmap ({reason}). "
                "MetaLearner(vectorize=False) takes the loop without asking.",
                stacklevel=_level_of_the_user(),
            )
            return False
    return True


def _level_of_the_user() -> int:
    """For a warning by the function that asks: the first caller that is neither of this library nor of PyTorch."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("fewstep", "torch"):
        frame, level = frame.f_back, level + 1
    return level

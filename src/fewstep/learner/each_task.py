"""A function of every task of a meta-batch: at once where that is possible and pays, in chunks, or one by one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_map

from fewstep.adaptation.random_numbers import replayed
from fewstep.learner.gradients import accumulate
from fewstep.tasks import Task
from fewstep.tasks.trees import split, tensors

VMAP_LIMIT = 9 * 2**19  # 4.5 MiB: benchmarks/vectorize.py
"""On a CPU, tasks whose loss keeps more bytes than this for its backward pass are looped over, not vmapped."""

Tasks = Task | Sequence[Task]
"""A meta-batch: one task with a leading task axis, or a list of tasks, which are taken one by one."""


class EachTask:
    """``function`` of each task, stacked: under vmap, or one by one.

    Either way every task goes through the model by itself, so that batch norm never mixes tasks.

    Args:
        vectorize: ``True``: all tasks at once (vmap); ``False``: a loop; ``"auto"``: a loop where vmap does not
            support the function, or, on a CPU, where one task keeps more than ``VMAP_LIMIT`` bytes for its backward
            pass; vmap otherwise. The first call settles it, for a list of tasks each call.
        chunk: at most this many tasks at once under vmap; memory then does not grow with the meta-batch.

    >>> from fewstep.tasks import Sinusoids
    >>> EachTask()(lambda task: task.query.x.mean(), Sinusoids().sample(7)).shape
    torch.Size([7])
    """

    def __init__(self, vectorize: bool | str = "auto", chunk: int | None = None) -> None:
        if vectorize not in (True, False, "auto"):
            raise ValueError(f'vectorize must be True, False or "auto"; got {vectorize!r}.')
        if chunk is not None and (not isinstance(chunk, int) or chunk < 1):
            raise ValueError(f"chunk must be None or a whole number, at least 1; got {chunk}.")
        self.vectorize, self.chunk = vectorize, chunk
        self.vmaps = None if vectorize == "auto" else bool(vectorize)
        """Whether tasks go through the model at once; ``None`` before that is settled."""

    def __call__(self, function: Callable[[Task], Any], tasks: Tasks) -> Any:
        self.settle(function, tasks)
        found = [self.at_once(function, part) for part in self.parts(tasks)]
        return found[0] if len(found) == 1 else tree_map(lambda *values: torch.cat(values), *found)

    def mean(
        self,
        function: Callable[[Task], Tensor],
        tasks: Tasks,
        parameters: Iterable[Tensor],
        others: bool = False,
    ) -> Tensor:
        """The mean of a loss over tasks, ready for ``backward()``.

        Where tasks are taken in parts, each part's gradient, for the parameters and for whatever in the tasks requires
        one, is computed before the next is begun, so that memory does not grow with the meta-batch. Not so if the loss
        depends on ``others`` that require a gradient: then the graphs of all parts are kept.
        """
        self.settle(function, tasks)
        parts = self.parts(tasks)
        if len(parts) == 1 or others or not torch.is_grad_enabled():
            return torch.cat([self.at_once(function, part) for part in parts]).mean()
        sums = [partial(self._sum, function, part) for part in parts]
        learned = {id(value): value for value in (*parameters, *tensors(tasks)) if value.requires_grad}
        return accumulate(sums, list(learned.values()), 1 / len(tasks))

    def at_once(self, function: Callable[[Task], Any], tasks: Tasks) -> Any:
        """Of all tasks, without chunks; under vmap if it has been settled so."""
        if self.vmaps and isinstance(tasks, Task):
            values, rebuild = split(tasks)
            return torch.vmap(lambda *each: function(rebuild(list(each))), randomness="different")(*values)
        found = [function(tasks[i]) for i in range(len(tasks))]
        return tree_map(lambda *values: torch.stack(values), *found)

    def settle(self, function: Callable[[Task], Any], tasks: Tasks, saved: int | None = None) -> None:
        """Chooses, if that has not been done; ``saved`` are the bytes that one task keeps, where they are known."""
        if self.vmaps is None and isinstance(tasks, Task):
            self.vmaps = self.would_vmap(function, tasks, saved)

    def would_vmap(
        self, function: Callable[[Task], Any], tasks: Task, saved: int | None = None, learned: Sequence[Tensor] = ()
    ) -> bool:
        """Whether tasks should go through the model at once, as ``vectorize`` says or as a trial shows.

        Args:
            function: of one task.
            tasks: a meta-batch.
            saved: the bytes that one task keeps for its backward pass, where they are known.
            learned: the gradient of the function for these is tried too.
        """
        if self.vectorize != "auto":
            return bool(self.vectorize)
        with replayed():  # a resumed run looks again, and must draw the same numbers as one that was not stopped
            if on_cpu(tasks) and (_saved(function, tasks[0]) if saved is None else saved) > VMAP_LIMIT:
                return False
            return self._supports_vmap(function, tasks, learned)

    def parts(self, tasks: Tasks) -> list[Any]:
        """The parts of a meta-batch that are taken at once: all of it, chunks, or tasks one by one."""
        size = (self.chunk or len(tasks)) if self.vmaps and isinstance(tasks, Task) else 1
        return [tasks] if size >= len(tasks) else [tasks[i : i + size] for i in range(0, len(tasks), size)]

    def _sum(self, function: Callable[[Task], Tensor], tasks: Tasks) -> Tensor:
        found: Tensor = self.at_once(function, tasks).sum()
        return found

    def _supports_vmap(self, function: Callable[[Task], Any], tasks: Task, learned: Sequence[Tensor]) -> bool:
        """Tries a part of the meta-batch as it will be taken, forward and, if gradients are wanted, backward."""
        trial = EachTask(vectorize=True)
        part = tasks[: self.chunk or len(tasks)]
        try:
            with torch.set_grad_enabled(bool(learned)):
                found = trial.at_once(function, part)
                if learned and found.requires_grad:
                    torch.autograd.grad(found.sum(), learned, allow_unused=True)
        except (RuntimeError, ValueError) as error:
            with torch.set_grad_enabled(bool(learned)):
                function(tasks[0])  # raises what is wrong with the task, if it is not vmap
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            warnings.warn(
                f"Looping over tasks: the model does not run under torch.vmap ({reason}). "
                "MetaLearner(vectorize=False) takes the loop without asking.",
                stacklevel=_level_of_the_user(),
            )
            return False
        return True


class SavedBytes(saved_tensors_hooks):
    """Inside, counts the bytes that autograd keeps for the backward pass."""

    def __init__(self) -> None:
        super().__init__(self._note, lambda tensor: tensor)
        self.count = 0

    def _note(self, tensor: Tensor) -> Tensor:
        self.count += tensor.numel() * tensor.element_size()
        return tensor


def on_cpu(tasks: Any) -> bool:
    """Whether the tensors of a meta-batch are on a CPU."""
    return bool(tensors(tasks)[0].device.type == "cpu")


def _saved(function: Callable[[Task], Any], task: Task) -> int:
    saved = SavedBytes()
    with torch.enable_grad(), saved:
        function(task)
    return saved.count


def _level_of_the_user() -> int:
    """For a warning by the function that asks: the first caller that is neither of this library nor of PyTorch."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("fewstep", "torch"):
        frame, level = frame.f_back, level + 1
    return level

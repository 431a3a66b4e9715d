"""A function of every task of a meta-batch: at once with vmap, in chunks, or one task after the other."""

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
from fewstep.learner.gradients import accumulate, summed, with_gradients
from fewstep.parallel import Processes, current
from fewstep.parallel.processes import ALONE
from fewstep.tasks import Task
from fewstep.tasks.trees import split, tensors

VMAP_LIMIT = 9 * 2**19  # 4.5 MiB: benchmarks/vectorize.py
"""On a CPU, if the loss of a task keeps more bytes than this for its backward pass, tasks are evaluated in a loop."""

Tasks = Task | Sequence[Task]
"""A meta-batch: one task with a leading task axis, or a list of tasks, which are evaluated one after the other."""


class EachTask:
    """Evaluate a function of each task, with vmap or in a loop, and stack the results.

    In both cases each task is evaluated separately, so batch normalisation never mixes tasks.

    Args:
        vectorize: ``True`` evaluates all tasks at once (``torch.vmap``), ``False`` one after the other. ``"auto"`` uses
            a loop if vmap does not support the function, or if on a CPU one task keeps more than ``VMAP_LIMIT`` bytes
            for its backward pass, and vmap otherwise; it is decided on the first call. Lists of tasks always use a
            loop.
        chunk: the maximum number of tasks that vmap evaluates at once, which limits memory.

    Examples:
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
        """Whether vmap is used; ``None`` before it is decided."""

    def __call__(self, function: Callable[[Task], Any], tasks: Tasks) -> Any:
        """The results for all tasks, stacked. Several processes share the tasks, unless gradients are recorded."""
        self.decide(function, tasks)
        processes = ALONE if torch.is_grad_enabled() else current()
        own, _ = processes.own_tasks(tasks)
        return processes.of_all(lambda: self._in_parts(function, own), len(tasks))

    def _in_parts(self, function: Callable[[Task], Any], tasks: Tasks) -> Any:
        found = [self.at_once(function, part) for part in self.parts(tasks)]
        return found[0] if len(found) == 1 else tree_map(lambda *values: torch.cat(values), *found)

    def mean(
        self,
        function: Callable[[Task], Tensor],
        tasks: Tasks,
        parameters: Iterable[Tensor],
        external: Sequence[Tensor] = (),
    ) -> Tensor:
        """The mean of a loss over tasks, ready for ``backward()``.

        If tasks are evaluated in parts, the gradient of each part, for the parameters and for tensors in the tasks that
        require one, is computed before the next part is evaluated, so memory does not grow with the meta-batch. If the
        loss depends on ``external`` tensors that require a gradient, the graphs of all parts are kept. If several
        processes share the tasks, loss and gradients are those of all tasks.
        """
        self.decide(function, tasks)
        processes = current()
        if not torch.is_grad_enabled():
            found: Tensor = self(function, tasks)
            return found.mean()
        own, counted = processes.own_tasks(tasks)
        parts = self.parts(own)
        if processes.size == 1 and (len(parts) == 1 or external):
            return torch.cat([self.at_once(function, part) for part in parts]).mean()
        sums = [partial(self._sum, function, part) for part in parts]
        learned = {id(value): value for value in (*parameters, *tensors(tasks), *external) if value.requires_grad}
        scale = 1 / len(tasks) if counted else 0.0
        wanted = list(learned.values())
        value, gradients = summed(processes, lambda: accumulate(sums, wanted, scale), wanted)
        return with_gradients(value, wanted, gradients)

    def at_once(self, function: Callable[[Task], Any], tasks: Tasks) -> Any:
        """Evaluate all tasks at once, without chunks: with vmap if that was decided, otherwise in a loop."""
        if self.vmaps and isinstance(tasks, Task):
            values, rebuild = split(tasks)
            return torch.vmap(lambda *each: function(rebuild(list(each))), randomness="different")(*values)
        found = [function(tasks[i]) for i in range(len(tasks))]
        return tree_map(lambda *values: torch.stack(values), *found)

    def decide(self, function: Callable[[Task], Any], tasks: Tasks, saved: int | None = None) -> None:
        """Decide between vmap and a loop, unless already decided; ``saved`` as for ``would_vmap``."""
        if self.vmaps is None and isinstance(tasks, Task):
            self.vmaps = self.would_vmap(function, tasks, saved)

    def would_vmap(
        self, function: Callable[[Task], Any], tasks: Task, saved: int | None = None, learned: Sequence[Tensor] = ()
    ) -> bool:
        """Whether tasks should be evaluated with vmap, as ``vectorize`` says or as a trial shows.

        Args:
            function: a function of one task.
            tasks: a meta-batch.
            saved: the bytes that one task keeps for its backward pass; ``None`` if not known yet.
            learned: the tensors that the function will be differentiated with respect to.
        """
        if self.vectorize != "auto":
            return bool(self.vectorize)
        with replayed():  # a resumed run decides again, and must draw the same numbers as an uninterrupted one
            if on_cpu(tasks) and (_saved(function, tasks[0]) if saved is None else saved) > VMAP_LIMIT:
                return False
            return self._supports_vmap(function, tasks, learned)

    def parts(self, tasks: Tasks) -> list[Any]:
        """The parts of a meta-batch that are evaluated at once: everything, chunks, or single tasks."""
        size = (self.chunk or len(tasks)) if self.vmaps and isinstance(tasks, Task) else 1
        return [tasks] if size >= len(tasks) else [tasks[i : i + size] for i in range(0, len(tasks), size)]

    def _sum(self, function: Callable[[Task], Tensor], tasks: Tasks) -> Tensor:
        found: Tensor = self.at_once(function, tasks).sum()
        return found

    def _supports_vmap(self, function: Callable[[Task], Any], tasks: Task, learned: Sequence[Tensor]) -> bool:
        """Try vmap on a part of the meta-batch, forward and, if there are learned tensors, backward."""
        trial = EachTask(vectorize=True)
        part = tasks[: min(self.chunk or len(tasks), len(Processes(0, current().size).share(len(tasks))))]
        try:
            with torch.set_grad_enabled(bool(learned)):
                found = trial.at_once(function, part)
                if learned and found.requires_grad:
                    torch.autograd.grad(found.sum(), learned, allow_unused=True)
        except (RuntimeError, ValueError) as error:
            with torch.set_grad_enabled(bool(learned)):
                function(tasks[0])  # raises the error if it is due to the task and not to vmap
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            warnings.warn(
                f"Looping over tasks: the model does not run under torch.vmap ({reason}). "
                "Pass vectorize=False to use the loop without this warning.",
                stacklevel=_level_of_the_user(),
            )
            return False
        return True


class SavedBytes(saved_tensors_hooks):
    """A context that counts the bytes that autograd keeps for the backward pass."""

    def __init__(self) -> None:
        super().__init__(self._note, lambda tensor: tensor)
        self.count = 0

    def _note(self, tensor: Tensor) -> Tensor:
        self.count += tensor.numel() * tensor.element_size()
        return tensor.detach()  # an output itself would refer to its graph and the graph to it


def on_cpu(tasks: Any) -> bool:
    """Whether the tensors of a meta-batch are on a CPU."""
    return bool(tensors(tasks)[0].device.type == "cpu")


def _saved(function: Callable[[Task], Any], task: Task) -> int:
    saved = SavedBytes()
    with torch.enable_grad(), saved:
        function(task)
    return saved.count


def _level_of_the_user() -> int:
    """The stack level of the first caller outside of this library and PyTorch, for ``warnings.warn``."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("fewstep", "torch"):
        frame, level = frame.f_back, level + 1
    return level

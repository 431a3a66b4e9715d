"""The first checks of a learner: which kinds of meta-batch were checked, and when to check again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.learner.checks import check_sets
from fewstep.learner.choices import Choices
from fewstep.learner.each_task import EachTask, Tasks
from fewstep.learner.first_check import FirstCheck, first_check
from fewstep.learner.first_task import Function
from fewstep.learner.watch import ParameterNames
from fewstep.models.context import evaluating
from fewstep.tasks import Task
from fewstep.tasks.trees import signature, tensors

TRAINING = "training"

MAX_KEPT = 256
"""The maximum number of results that are kept; the oldest is dropped first."""

MAX_SIZES = 16
"""The maximum number of sizes of one kind of meta-batch that are checked; further sizes use the last result."""


class FirstChecks(dict[tuple[Hashable, ...], FirstCheck]):
    """The results of first checks by kind of meta-batch; a copy of a learner, or one in another process, checks again.

    Args:
        choices: the choices of the learner.
        each: how its tasks are to be evaluated.
        original: the user's module.
    """

    def __init__(self, choices: Choices, each: EachTask, original: nn.Module | None = None) -> None:
        super().__init__()
        self.choices, self.each = choices, each
        self.original = ParameterNames() if original is None else ParameterNames(original)
        self.vmaps: dict[str, bool] = {}
        """Whether tasks are trained with vmap, by kind of meta-batch: decided at the first of a kind, or in the run
        that is resumed."""
        self._support_shapes: set[tuple[torch.Size, ...]] = set()
        self._note_structure()

    def _note_structure(self) -> None:
        self.modules = _modules(self.choices)
        self._structure = [(module, tuple(module._modules.values())) for module in self.modules]

    def __reduce__(self) -> tuple[Any, ...]:
        return FirstChecks, (self.choices, self.each)

    def result(
        self,
        tasks: Tasks,
        function: Function | None,
        purpose: Hashable = None,
        find_learned: Callable[[], Sequence[Tensor]] | None = None,
    ) -> tuple[tuple[Hashable, ...], FirstCheck]:
        """The result for a kind of meta-batch, and the key of this kind.

        Args:
            tasks: a meta-batch. In a list, one task of each kind is checked.
            function: a function of a task, which will be evaluated; ``None`` for adaptation to support sets only.
            purpose: ``TRAINING``, or the metric.
            find_learned: returns the tensors that the function will be differentiated with respect to; ``None`` if it
                will not be.
        """
        if isinstance(tasks, Task):
            return self._of_kind(tasks, function, purpose, find_learned)
        check_sets(tasks, self.choices.params())
        kinds = {_signature([task]): task for task in reversed(tasks)}
        if len(kinds) == 1:
            return self._of_kind(tasks, function, purpose, find_learned)
        found = [self._of_kind([task], function, purpose, find_learned) for task in reversed(kinds.values())]
        checks = [check for _, check in found]
        external = {id(tensor): tensor for check in checks for tensor in check.external}
        stochastic, mixes_modes = any(check.stochastic for check in checks), any(check.mixes_modes for check in checks)
        return found[0][0], FirstCheck(checks[0].each, stochastic, tuple(external.values()), mixes_modes)

    def check_one_task(self, support: Any) -> None:
        """Raise if a support set has a task axis more than those of the tasks before.

        A network would take the examples of all tasks for one set.
        """
        alone, with_axis = (tuple(leaf.shape[axes:] for leaf in tensors(support)) for axes in (1, 2))
        if alone not in self._support_shapes and with_axis in self._support_shapes:
            shapes = [tuple(leaf.shape) for leaf in tensors(support)]
            raise ValueError(
                f"adapt expects the support set of one task, [examples, ...]; got shapes {shapes}, which have a "
                "leading task axis. Adapt to one task at a time: learner.adapt(tasks[0].support)."
            )

    def check_axes(self, tasks: Task) -> None:
        """Raise if a meta-batch has a task axis less, or one of size 1 more, than those before."""
        shapes = [leaf.shape for leaf in tensors(tasks.support)]
        seen = self._support_shapes
        fewer, same, more = (tuple(shape[axes:] for shape in shapes) for axes in (1, 2, 3))
        if same in seen or not (fewer in seen or (more in seen and all(shape[0] == 1 for shape in shapes))):
            return
        what, fix = (
            ("no task axis", "fewstep.Task.stack([task])") if fewer in seen else ("an axis too many", "tasks[0]")
        )
        raise ValueError(
            f"Tensors of a meta-batch are [tasks, examples, ...]; compared with earlier tasks, these have {what}: got "
            f"support shapes {[tuple(shape) for shape in shapes]}. Pass {fix}."
        )

    def _of_kind(
        self,
        tasks: Tasks,
        function: Function | None,
        purpose: Hashable,
        find_learned: Callable[[], Sequence[Tensor]] | None,
    ) -> tuple[tuple[Hashable, ...], FirstCheck]:
        choices = self.choices
        if any(tuple(module._modules.values()) != parts for module, parts in self._structure):
            choices.refresh()
            self._note_structure()
            self.clear()
        adjoint, objective = choices.adjoint, choices.objective
        modes = tuple([module.training for module in self.modules])
        autocast = torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
        objective_kind = objective if isinstance(objective, FunctionType) else type(objective)
        structure, shapes = _signature(tasks)
        kind = evaluating(), modes, adjoint, objective_kind, autocast, structure
        key = purpose, kind, shapes
        found = self.get(key)
        if found is None:
            seen = [check for other, check in list(self.items()) if other[:2] == key[:2]]
            if len(seen) >= MAX_SIZES:
                found = seen[-1]
            else:
                if isinstance(tasks, Task):
                    self.check_axes(tasks)
                choices.check()
                learned = None if find_learned is None else find_learned()
                place = str([(tuple(leaf.shape), leaf.dtype, leaf.device.type) for leaf in tensors(tasks)])
                each = self.each
                if purpose is TRAINING and each.vmaps is None and place in self.vmaps:
                    each = EachTask(each.vectorize, each.chunk)
                    each.vmaps = self.vmaps[place]
                found = first_check(choices, tasks, function, each, self.original, learned)
                if purpose is TRAINING and found.each.vmaps is not None:
                    self.vmaps[place] = found.each.vmaps
                self._support_shapes.add(tuple(leaf.shape[1:] for leaf in tensors(tasks[0].support)))
            while len(self) > MAX_KEPT:
                self.pop(next(iter(self)), None)
            self[key] = found
            if purpose is TRAINING:  # what works with derivatives works without
                self[None, kind, shapes] = found
                structure, shapes = _signature([Task(tasks[0].support, None)])
                self[None, (*kind[:-1], structure), shapes] = found
        return key, found


def _signature(tasks: Tasks) -> tuple[Any, ...]:
    return signature(tasks if isinstance(tasks, Task) else [tasks[0]])


def _modules(choices: Choices) -> list[nn.Module]:
    parts = (choices.model, choices.loss, choices.inner_loss)
    return [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]

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
from fewstep.learner.first_task import Function
from fewstep.learner.look import Look, look
from fewstep.learner.watch import Own
from fewstep.models.context import evaluating
from fewstep.tasks import Task
from fewstep.tasks.trees import signature

TRAINING = "training"

AT_MOST_KEPT = 256
"""The maximum number of results that are kept; the oldest is dropped first."""

AT_MOST = 16
"""The maximum number of sizes of one kind of meta-batch that are checked; further sizes use the last result."""


class Looks(dict[tuple[Hashable, ...], Look]):
    """The results of first checks by kind of meta-batch; a copy of a learner, or one in another process, checks again.

    Args:
        choices: the choices of the learner.
        each: how its tasks are to be evaluated.
        original: the user's module.
    """

    def __init__(self, choices: Choices, each: EachTask, original: nn.Module | None = None) -> None:
        super().__init__()
        self.choices, self.each = choices, each
        self.original = Own() if original is None else Own(original)
        self._note_structure()

    def _note_structure(self) -> None:
        self.modules = _modules(self.choices)
        self._structure = [(module, tuple(module._modules.values())) for module in self.modules]

    def __reduce__(self) -> tuple[Any, ...]:
        return Looks, (self.choices, self.each)

    def at(
        self,
        tasks: Tasks,
        function: Function | None,
        purpose: Hashable = None,
        find_learned: Callable[[], Sequence[Tensor]] | None = None,
    ) -> tuple[tuple[Hashable, ...], Look]:
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
        looks = [look for _, look in found]
        others = {id(tensor): tensor for look in looks for tensor in look.others}
        stochastic, mixes_modes = any(look.stochastic for look in looks), any(look.mixes_modes for look in looks)
        return found[0][0], Look(looks[0].each, stochastic, tuple(others.values()), mixes_modes)

    def _of_kind(
        self,
        tasks: Tasks,
        function: Function | None,
        purpose: Hashable,
        find_learned: Callable[[], Sequence[Tensor]] | None,
    ) -> tuple[tuple[Hashable, ...], Look]:
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
            seen = [look for other, look in list(self.items()) if other[:2] == key[:2]]
            if len(seen) >= AT_MOST:
                found = seen[-1]
            else:
                choices.check()
                learned = None if find_learned is None else find_learned()
                found = look(choices, tasks, function, self.each, self.original, learned)
            while len(self) > AT_MOST_KEPT:
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

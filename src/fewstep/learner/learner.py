"""What all meta-learners share: copies of the modules, the choices, and the first check of their tasks."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from fewstep.adaptation import Adjoint, Rule
from fewstep.adaptation.rules import Params
from fewstep.learner.checks import check_loss, check_model, check_steps
from fewstep.learner.choices import Choices
from fewstep.learner.each_task import EachTask, Tasks
from fewstep.learner.first_checks import TRAINING, FirstChecks
from fewstep.learner.scheduled import Scheduled
from fewstep.learner.selection import Names, select
from fewstep.models.stand_in import note_live_tensors, own_copy, rebind_copies
from fewstep.objectives import Objective
from fewstep.tasks import trees

Model = TypeVar("Model", bound=nn.Module)

FIXED = frozenset(("model", "loss", "inner_loss", "rule", "steps", "adapts", "adjoint", "objective", "compiles"))
"""The attributes that are set when a learner is made and cannot be assigned later."""


class Learner(nn.Module, ABC, Generic[Model]):
    """The base class of meta-learners; see [`MetaLearner`][fewstep.MetaLearner] for the meaning of the arguments.

    Model and losses are copied; the modules that are passed in are never modified. The arguments are attributes that
    cannot be assigned later.

    Args:
        model: any ``nn.Module``.
        loss: the loss of the outer loop.
        rule: the inner update.
        steps: the number of inner steps, K.
        adapts: name patterns of the parameters that the inner loop changes.
        adjoint: how dφ/dθ is computed.
        objective: what the outer loop minimises.
        learns: name patterns of the parameters that the outer loop learns.
        inner_loss: the loss of the inner loop, if it differs from ``loss``.
        inner_batch: the maximum number of support examples per inner step.
        each: how the tasks of a meta-batch are evaluated: at once or one after the other.
        compile: whether the whole meta-step is compiled.
    """

    def __init__(
        self,
        model: Model,
        loss: Callable[..., Tensor],
        *,
        rule: Rule,
        steps: int,
        adapts: Names,
        adjoint: Adjoint | Scheduled[Adjoint],
        objective: Objective | Scheduled[Objective],
        learns: Names,
        inner_loss: Callable[..., Tensor] | None,
        inner_batch: int | None,
        each: EachTask,
        compile: bool | str,
    ) -> None:
        super().__init__()
        check_model(model)
        check_loss(loss)
        check_loss(inner_loss or loss, "inner_loss")
        check_steps(steps)
        if inner_batch is not None and (not isinstance(inner_batch, int) or inner_batch < 1):
            raise ValueError(f"inner_batch must be a whole number, 1 or more, or None for all; got {inner_batch!r}.")
        if compile not in (True, False, "record"):
            raise ValueError(f'compile must be True, False or "record"; got {compile!r}.')
        self.model, self.loss, self.inner_loss = own_copy((model, loss, inner_loss or loss))
        self.rule, self.steps, self.adjoint, self.objective = rule, steps, adjoint, objective
        self.compiles, self._each = compile, each
        trainable = [name for name, value in self.model.named_parameters() if value.requires_grad]
        self.adapts = self._select(adapts, "adapts", trainable)
        learned = self._select(learns, "learns", trainable) if learns else []
        for name, value in self.model.named_parameters():
            value.requires_grad_(name in learned)
        self._trainable = trainable
        if self.loss is not self.inner_loss and isinstance(self.loss, nn.Module):
            shared = {id(value) for part in (self.model, self.inner_loss, rule) for value in _parameters(part)}
            for value in self.loss.parameters():
                value.requires_grad_(value.requires_grad and id(value) in shared)
        choices = Choices(
            self.model, self.loss, self.inner_loss, rule, steps, self.adapts, adjoint, objective, inner_batch
        )
        choices.check()
        if not any(value.requires_grad for value in self.parameters()):
            raise ValueError(f"learns={learns!r} leaves nothing to learn: neither the rule nor a loss has parameters.")
        self._choices, self._checks = choices, FirstChecks(choices, each, model)

    @property
    def iteration(self) -> int:
        """The outer iteration, which [`fit`][fewstep.fit] sets; see [`Scheduled`][fewstep.Scheduled]."""
        return self._choices.iteration

    @iteration.setter
    def iteration(self, iteration: int) -> None:
        self._choices.iteration = iteration

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FIXED and "_choices" in self.__dict__:
            raise AttributeError(
                f"{name} is set when a learner is made and cannot be assigned later. Make another "
                f"{type(self).__name__} from learner.model."
            )
        super().__setattr__(name, value)

    def adapting(self, adapts: Names) -> Learner[Model]:
        """A copy of this learner that adapts other parameters and is otherwise the same.

        Args:
            adapts: one or more name patterns of the parameters that the inner loop changes.

        Returns:
            The new learner; its parameters are copies too.

        Raises:
            ValueError: a pattern matches no trainable parameter.
        """
        twin = copy.deepcopy(self)
        twin.__dict__["adapts"] = self._select(adapts, "adapts", self._trainable)
        twin._choices = twin._choices.replaced(adapts=twin.adapts)
        twin._choices.check()
        twin._checks = FirstChecks(twin._choices, twin._each)
        return twin

    def _select(self, patterns: Names, purpose: str, trainable: list[str]) -> list[str]:
        """The trainable parameters that match; a tied parameter matches by any of its names."""
        names = {id(value): name for name, value in self.model.named_parameters()}
        aliases = {alias: names[id(v)] for alias, v in self.model.named_parameters(remove_duplicate=False)}
        chosen = select(patterns, [alias for alias, name in aliases.items() if name in trainable], purpose)
        wanted = {aliases[alias] for alias in chosen}
        return [name for name in trainable if name in wanted]

    def __deepcopy__(self, memo: dict[int, Any]) -> Learner[Model]:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        note_live_tensors(self.modules(), memo)
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        rebind_copies(memo)
        return twin

    @abstractmethod
    def meta_loss(self, tasks: Any) -> Float[Tensor, ""]:
        """Compute the mean meta-objective of a meta-batch, a scalar ready for ``backward()``."""

    def meta_gradient(self, tasks: Any) -> Float[Tensor, ""]:
        """Call ``meta_loss(tasks).backward()``; returns the meta-objective, detached."""
        loss = self.meta_loss(tasks)
        loss.backward()
        return loss.detach()

    def forward(self, tasks: Tasks) -> Float[Tensor, ""]:
        """The mean meta-objective of given data; call [`meta_loss`][fewstep.MetaLearner.meta_loss] instead."""
        return self._mean_objective(tasks)

    def _path(self, support: Any, steps: int) -> list[Params]:
        """[φ_0, …, φ_K] of one task."""
        return self._choices.path(support, steps)

    def _mean_objective(self, tasks: Tasks, first: Callable[[Tasks], None] | None = None) -> Tensor:
        """The mean meta-objective of the tasks; ``first`` is called once the tasks are checked."""
        check = self._checks.result(tasks, self._choices.objective_of, TRAINING, partial(self._learned, tasks))[1]
        if first is not None:
            first(tasks)
        objective = partial(self._choices.objective_of, reuse=not check.stochastic)
        return check.each.mean(objective, tasks, self._tensors(), external=check.external)

    def _steps(self, steps: int | None) -> int:
        if steps is None:
            return self.steps
        check_steps(steps)
        return steps

    def _tensors(self) -> list[Tensor]:
        return [*self.parameters(), *self.buffers()]

    def _learned(self, tasks: Any) -> list[Tensor]:
        """All tensors that the meta-objective is differentiated with respect to."""
        return learned_of((*self._tensors(), *trees.tensors(tasks)))


def _parameters(part: Any) -> Iterable[Tensor]:
    return part.parameters() if isinstance(part, nn.Module) else ()


def learned_of(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The tensors that require a gradient."""
    return [tensor for tensor in tensors if tensor.requires_grad]

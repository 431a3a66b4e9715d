"""The meta-learner: shared parameters, and the five choices that make an algorithm of the family."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from types import FunctionType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from fewstep.adaptation import Adjoint, Recomputed, Rule, Unrolled
from fewstep.adaptation.inner_loop import gradient_and_value, path_and_state
from fewstep.adaptation.random_numbers import replayed
from fewstep.adaptation.rules import Params
from fewstep.compiling import CompiledGradient, compiler_missing
from fewstep.learner.checks import check_loss, check_model
from fewstep.learner.choices import Choices
from fewstep.learner.each_task import EachTask, Tasks, on_cpu
from fewstep.learner.gradients import laid_out_like, outside_inference_mode, with_gradients
from fewstep.learner.look import Look, Looks
from fewstep.learner.look import look as look_at
from fewstep.learner.scheduled import Scheduled
from fewstep.learner.selection import Names, select
from fewstep.learner.task_loss import TaskLoss
from fewstep.learner.watch import Own
from fewstep.models.context import evaluating, inner_step, recording
from fewstep.models.normalization import BatchNorm, RunningNorm
from fewstep.models.stand_in import own_copy, rebind_copies, stand_in
from fewstep.objectives import Objective, query_loss
from fewstep.tasks import Task, trees

Model = TypeVar("Model", bound=nn.Module)

FIXED = frozenset(("model", "loss", "inner_loss", "rule", "steps", "adapts", "adjoint", "objective", "compiles"))
"""What is chosen when a learner is made."""

TRAINING = "training"

LOOKS = 16
"""Sizes of meta-batches that are looked at one by one; more of them, of a kind that was seen, are taken as seen."""


class MetaLearner(nn.Module, Generic[Model]):
    """Shared parameters θ and whatever else is meta-learned, with adaptation to a task (MAML, Algorithm 1).

    ``parameters()`` are what the outer optimiser learns: θ, learned rates, a learned loss. The model is copied: the
    module that was passed in is never written to.

    Args:
        model: any ``nn.Module``.
        loss: ``loss(model, batch) -> scalar``; it may call the model, or any of its methods, as often as it likes.
        rule: one inner update.
        steps: inner updates on the support set, K. 0 learns all tasks jointly (pretraining).
        adapts: which trainable parameters the inner loop moves; see :func:`fewstep.learner.select`.
        adjoint: how dφ/dθ is obtained, or a :class:`Scheduled` one.
        objective: what the outer loop minimises, or a :class:`Scheduled` one.
        learns: which trainable parameters the outer loop learns.
        inner_loss: the loss of the inner loop where it differs; an ``nn.Module`` makes it a learned loss.
        inner_batch: each inner step sees at most this many examples of the support set, the next step the next ones,
            and so on in turns (Reptile); all at every step if not given.
        vectorize: ``True`` puts all tasks through the model at once (vmap); ``False`` loops over them; ``"auto"``
            chooses: a loop where vmap does not support the model, or, on a CPU, where one task alone keeps more than
            ``fewstep.learner.VMAP_LIMIT`` bytes of activations; vmap otherwise.
        chunk: at most this many tasks at once under vmap; memory then does not grow with the meta-batch. A compiled
            meta-step takes all tasks at once.
        compile: ``True``: make one graph of the whole meta-step: compiled on a CPU; its kernels fused and recorded as a
            CUDA graph on a GPU, the tasks of a loop side by side. The first call takes seconds for a small network,
            minutes for several steps of a convolutional one. ``"record"``: on a GPU only recorded, in a second; on a
            CPU not compiled. Numbers that are no parameters, such as a fixed inner learning rate, stay as they are.

    Raises:
        ValueError: a choice that cannot work, with the module or parameter and the fix.
        RuntimeError: by the first meta-batch on a GPU, if what is to be compiled reads numbers back.

    >>> import torch, fewstep
    >>> learner = MetaLearner(torch.nn.Linear(1, 1), fewstep.mse, rule=fewstep.GradientDescent(0.1), steps=3)
    >>> loss = learner.meta_loss(fewstep.tasks.Sinusoids(shots=5).sample(25))
    >>> loss.backward()
    """

    _original: Own

    def __init__(
        self,
        model: Model,
        loss: Callable[..., Tensor],
        *,
        rule: Rule,
        steps: int,
        adapts: Names = "*",
        adjoint: Adjoint | Scheduled[Adjoint] = Unrolled(),  # noqa: B008 - immutable
        objective: Objective | Scheduled[Objective] = query_loss,
        learns: Names = "*",
        inner_loss: Callable[..., Tensor] | None = None,
        inner_batch: int | None = None,
        vectorize: bool | str = "auto",
        chunk: int | None = None,
        compile: bool | str = False,
    ) -> None:
        super().__init__()
        check_model(model)
        check_loss(loss)
        check_loss(inner_loss or loss, "inner_loss")
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"steps must be a whole number, 0 or more; got {steps!r}.")
        if inner_batch is not None and (not isinstance(inner_batch, int) or inner_batch < 1):
            raise ValueError(f"inner_batch must be a whole number, 1 or more, or None for all; got {inner_batch!r}.")
        if compile not in (True, False, "record"):
            raise ValueError(f'compile must be True, False or "record"; got {compile!r}.')
        self.model, self.loss, self.inner_loss = own_copy((model, loss, inner_loss or loss))
        self.rule, self.steps, self.adjoint, self.objective = rule, steps, adjoint, objective
        self.compiles, self._each = compile, EachTask(vectorize, chunk)
        trainable = [name for name, value in self.model.named_parameters() if value.requires_grad]
        self.adapts = select(adapts, trainable, "adapts")
        learned = select(learns, trainable, "learns") if learns else []
        for name, value in self.model.named_parameters():
            value.requires_grad_(name in learned)
        self._trainable = trainable
        if self.loss is not self.inner_loss and isinstance(self.loss, nn.Module):
            self.loss.requires_grad_(False)
        self._choices = Choices(
            self.model, self.loss, self.inner_loss, rule, steps, self.adapts, adjoint, objective, inner_batch
        )
        self._choices.check()
        if not any(value.requires_grad for value in self.parameters()):
            raise ValueError(f"learns={learns!r} leaves nothing to learn: neither the rule nor a loss has parameters.")
        self._original = Own(model)
        self._looks = Looks()
        self._modules_in_order = list(self.model.modules())
        self._compiled = CompiledGradient(fuses=compile is True)

    @property
    def iteration(self) -> int:
        """The outer iteration, which :class:`Scheduled` choices follow; :func:`fewstep.fit` sets it."""
        return self._choices.iteration

    @iteration.setter
    def iteration(self, iteration: int) -> None:
        self._choices.iteration = iteration

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FIXED and "_choices" in self.__dict__:
            raise AttributeError(
                f"{name} is chosen when a learner is made, and cannot be assigned later; make another "
                f"{type(self).__name__} from learner.model."
            )
        super().__setattr__(name, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> MetaLearner[Model]:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        rebind_copies(memo)
        return twin

    def meta_loss(self, tasks: Tasks) -> Tensor:
        """The meta-objective, averaged over the tasks of a meta-batch; a scalar ready for ``backward()``.

        Args:
            tasks: a :class:`fewstep.tasks.Task` whose tensors have a leading task axis, or a list of tasks without one,
                which are taken one by one and may differ in shape.

        Raises:
            ValueError: a kind of meta-batch that was not seen before shows something that cannot work (see
                :mod:`fewstep.learner.look`).
        """
        with outside_inference_mode(tasks) as tasks:
            key, look = self._look_at(tasks, self._choices.objective_of, TRAINING)
            if torch.is_grad_enabled():
                self._carry_on(tasks)
                if self._compiles(tasks):
                    value, gradients = self._compiled_gradient(tasks, key, look)
                    return with_gradients(value, _learned((*self._tensors(), *trees.tensors(tasks))), gradients)
            return look.each.mean(self._objective(look), tasks, self._tensors())

    def meta_gradient(self, tasks: Tasks) -> Tensor:
        """``meta_loss(tasks).backward()`` in one: the gradient is added to each parameter's ``grad``.

        The same numbers; without the way through autograd, a third less time for a small compiled meta-step.

        Returns:
            The meta-objective, detached.
        """
        overridden = type(self).meta_loss is not MetaLearner.meta_loss
        if overridden or not self._compiles(tasks) or any(t.requires_grad for t in trees.tensors(tasks)):
            loss = self.meta_loss(tasks)
            loss.backward()
            return loss.detach()
        key, look = self._look_at(tasks, self._choices.objective_of, TRAINING)
        self._carry_on(tasks)
        loss, gradients = self._compiled_gradient(tasks, key, look)
        for value, gradient in zip(_learned(self._tensors()), gradients, strict=True):
            if gradient is not None and not value.is_leaf:  # a tensor rate that was worked out from others
                value.backward(gradient)
            elif gradient is not None:
                gradient = laid_out_like(value, gradient)
                value.grad = gradient if value.grad is None else value.grad + gradient
        return loss

    def adapt(self, support: Any, steps: int | None = None) -> Model:
        """A plain module of the user's own class, adapted to one task.

        Args:
            support: the support set of a single task, without task axis.
            steps: inner updates; as in training if not given.

        Returns:
            A copy of the model that holds φ: to call, save, or train further.

        Raises:
            TypeError: a whole task was passed.
            ValueError: adaptation ended in NaN or infinite parameters, or as for :meth:`meta_loss`.
        """
        if isinstance(support, Task):
            raise TypeError("adapt expects the support set of one task; got a Task. Pass task.support.")
        steps = self.steps if steps is None else steps
        with outside_inference_mode(support) as support, torch.no_grad():
            look = self._look_at([Task(support, None)], None)[1]
            adapted = self._choices.path(support, steps, reuse=not look.stochastic)[-1]
            model: Model = self._choices.adapted_module(adapted, self._trainable)
            self._settle_norms(model, adapted, support, steps)
        return model

    def score(self, tasks: Tasks, metric: Callable[..., Tensor] | None = None, steps: int | None = None) -> Tensor:
        """A metric on the query set before adaptation and after every inner step, ``[tasks, steps + 1]``.

        Args:
            tasks: a meta-batch, or a list of tasks.
            metric: ``metric(model, batch) -> scalar``; the loss if not given.
            steps: inner updates; as in training if not given.
        """
        measure = self._choices.outer if metric is None else TaskLoss(self.model, metric)
        steps = self.steps if steps is None else steps
        one = partial(self._choices.scores, measure=measure, steps=steps)
        with outside_inference_mode(tasks) as tasks, torch.no_grad():
            look = self._look_at(tasks, one, metric)[1]
            scores: Tensor = look.each(partial(one, reuse=not look.stochastic), tasks)
        return scores

    def forward(self, tasks: Task) -> Tensor:
        """As :meth:`meta_loss`."""
        return self.meta_loss(tasks)

    def _objective(self, look: Look) -> Callable[[Task], Tensor]:
        return partial(self._choices.objective_of, reuse=not look.stochastic)

    # Normalisation that depends on the task

    def _settle_norms(self, model: nn.Module, adapted: Params, support: Any, steps: int) -> None:
        """Leaves in the norms of an adapted model what they need to know of its adaptation."""
        norms = [(own, its) for own, its in zip(self.model.modules(), model.modules(), strict=True)]
        if any(isinstance(own, BatchNorm) for own, _ in norms):
            with recording() as statistics, inner_step(max(steps - 1, 0)):
                self._choices.inner(adapted, support)
            for own, its in norms:
                if isinstance(own, BatchNorm) and isinstance(its, BatchNorm):
                    its.settle(steps, statistics.get(own))

    def _carry_on(self, tasks: Tasks) -> None:
        """Running norms and rules keep what goes on from task to task, as the first task of a meta-batch shows it."""
        running = [module for module in self._modules_in_order if isinstance(module, RunningNorm)]
        carry = getattr(self.rule, "carry", None)
        if not self.training or not (running or carry):
            return
        task, steps, choices = tasks[0], [gradient_and_value] * self.steps, self._choices
        with torch.no_grad(), replayed():
            if carry:
                start = choices.params()
                carry(path_and_state(steps, choices.step_loss, start, task.support, self.rule, self.adapts)[1])
            if running:
                path = choices.path(task.support)
                with recording() as statistics:
                    choices.outer(path[-1], task.query)
                for norm in running:
                    if norm in statistics:
                        norm.update(*statistics[norm])

    # A first look at each kind of meta-batch

    def _look_at(
        self, tasks: Tasks, function: Callable[..., Tensor] | None, purpose: Hashable = None
    ) -> tuple[tuple[Hashable, ...], Look]:
        """The look at a kind of meta-batch, and what tells this kind from others."""
        choices = self._choices
        adjoint, objective = choices.adjoint, choices.objective
        modes = tuple([module.training for module in self._modules_in_order])
        autocast = torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
        kind = (evaluating(), modes, adjoint, _kind_of(objective), autocast)
        key = purpose, kind, _signature(tasks)
        found = self._looks.get(key)
        if found is None:
            seen = [look for other, look in self._looks.items() if other[:2] == (purpose, kind)]
            if len(seen) < LOOKS:
                choices.check()
                trains = purpose is TRAINING
                learned = _learned((*self._tensors(), *trees.tensors(tasks))) if trains else None
                found = look_at(choices, tasks, function, self._each, self._original, learned)
                if self.compiles and found.stochastic and isinstance(adjoint, Recomputed):
                    raise ValueError(
                        "compile=True cannot replay the dropout of a Recomputed step; use adjoint=Unrolled()."
                    )
            else:
                found = seen[-1]
            self._looks[key] = found
            if purpose is TRAINING:  # what was tried with derivatives works without
                self._looks[None, kind, key[2]] = found
                self._looks[None, kind, _signature([Task(tasks[0].support, None)])] = found
        return key, found

    # Compiling: everything the loss depends on becomes an input of the graph

    def _compiles(self, tasks: Tasks) -> bool:
        if not isinstance(tasks, Task):
            return False
        if on_cpu(tasks):
            return self.compiles is True and not compiler_missing()
        return bool(self.compiles)

    def _tensors(self) -> list[Tensor]:
        return [*self.parameters(), *self.buffers()]

    def _compiled_gradient(self, tasks: Any, key: Hashable, look: Look) -> tuple[Tensor, list[Tensor | None]]:
        function = partial(self._loss_from, look)
        return self._compiled(function, self._tensors(), tasks, (key, self._choices.objective), look.each.parts)

    def _loss_from(self, look: Look, tensors: Sequence[Tensor], tasks: Task) -> Tensor:
        """The mean objective of tasks, with other tensors in place of all parameters and buffers."""
        own = {id(value): tensor for value, tensor in zip(self._tensors(), tensors, strict=True)}
        known: dict[int, Any] = {}
        parts: tuple[Any, ...] = (self.model, self.loss, self.inner_loss, self.rule)
        stands_in: list[Any] = [
            stand_in(part, own, None, known) if isinstance(part, nn.Module) else part for part in parts
        ]
        choices = self._choices.with_parts(*stands_in)
        objectives: Tensor = look.each.at_once(partial(choices.objective_of, reuse=not look.stochastic), tasks)
        return objectives.mean()

    def _apply(self, *args: Any, **kwargs: Any) -> MetaLearner[Model]:
        self._compiled = CompiledGradient(fuses=self.compiles is True)  # another device or dtype
        return super()._apply(*args, **kwargs)


def _signature(tasks: Tasks) -> Hashable:
    return trees.signature(tasks if isinstance(tasks, Task) else [tasks[0]])


def _kind_of(objective: Any) -> Any:
    return objective if isinstance(objective, FunctionType) else type(objective)


def _learned(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.requires_grad]

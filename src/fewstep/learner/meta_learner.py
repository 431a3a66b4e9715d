"""The meta-learner: shared parameters, and the five choices that make an algorithm of the family."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fewstep.adaptation import Adjoint, Recomputed, Rule, Unrolled
from fewstep.adaptation.inner_loop import gradient_and_value, path_and_state
from fewstep.adaptation.random_numbers import replayed
from fewstep.compiling import CompiledGradient, compiler_missing
from fewstep.learner.checks import Observed, check_model, check_rule, check_task, rule_tensors
from fewstep.learner.each_task import EachTask, on_cpu
from fewstep.learner.gradients import laid_out_like, with_gradients
from fewstep.learner.reuse import Unmoved
from fewstep.learner.selection import Names, select
from fewstep.learner.task_loss import LOSS_PREFIX, MinibatchLoss, QueryLoss, TaskLoss
from fewstep.models.context import inner_step, recording
from fewstep.models.normalization import BatchNorm, RunningNorm
from fewstep.objectives import Objective, query_loss
from fewstep.tasks import Task

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Scheduled(Generic[Choice]):
    """A choice that changes while training: ``choice(iteration)`` gives the adjoint or objective in force.

    >>> import fewstep
    >>> adjoint = Scheduled(lambda iteration: fewstep.FirstOrder() if iteration < 100 else fewstep.Unrolled())
    """

    choice: Callable[[int], Choice]


class MetaLearner(nn.Module):
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

    def __init__(
        self,
        model: nn.Module,
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
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"steps must be a whole number, 0 or more; got {steps!r}.")
        if inner_batch is not None and (not isinstance(inner_batch, int) or inner_batch < 1):
            raise ValueError(f"inner_batch must be a whole number, 1 or more, or None for all; got {inner_batch!r}.")
        self.model, self.loss, self.inner_loss = copy.deepcopy((model, loss, inner_loss or loss))
        self.rule, self.steps, self.adjoint, self.objective = rule, steps, adjoint, objective
        if compile not in (True, False, "record"):
            raise ValueError(f'compile must be True, False or "record"; got {compile!r}.')
        self.compiles, self._each = compile, EachTask(vectorize, chunk)
        self.iteration = 0
        """The outer iteration, which :class:`Scheduled` choices follow; :func:`fewstep.fit` sets it."""

        trainable = [name for name, value in self.model.named_parameters() if value.requires_grad]
        self.adapts = select(adapts, trainable, "adapts")
        learned = select(learns, trainable, "learns")
        for name, value in self.model.named_parameters():
            value.requires_grad_(name in learned)
        self._trainable = trainable
        if self.loss is not self.inner_loss and isinstance(self.loss, nn.Module):
            self.loss.requires_grad_(False)
        self._outer = TaskLoss(self.model, self.loss)
        self._inner = TaskLoss(self.model, self.inner_loss, learned=True)
        self._step_loss = self._inner if inner_batch is None else MinibatchLoss(self._inner, inner_batch)
        self._check_choices()
        self._observed: Observed | None = None
        self._unmoved = Unmoved(self.model, self.adapts)
        self._compiled = self._nothing_compiled()

    def meta_loss(self, tasks: Task) -> Tensor:
        """The meta-objective, averaged over the tasks of a meta-batch; a scalar ready for ``backward()``.

        Args:
            tasks: a :class:`fewstep.tasks.Task` whose tensors have a leading task axis.

        Raises:
            ValueError: the first meta-batch shows something that cannot work (see :mod:`fewstep.learner.checks`).
        """
        self._look_at(tasks)
        if torch.is_grad_enabled():
            self._carry_on(tasks)
            if self._compiles(tasks):
                tensors = self._tensors()
                value, gradients = self._compiled(tensors, tasks, self._variant())
                return with_gradients(value, _learned(tensors), gradients)
        return self._each.mean(self._task_objective, tasks, self._tensors())

    def meta_gradient(self, tasks: Task) -> Tensor:
        """``meta_loss(tasks).backward()`` in one: the gradient is added to each parameter's ``grad``.

        The same numbers; without the way through autograd, a third less time for a small compiled meta-step.

        Returns:
            The meta-objective, detached.
        """
        if not self._compiles(tasks) or type(self).meta_loss is not MetaLearner.meta_loss:
            loss = self.meta_loss(tasks)
            loss.backward()
            return loss.detach()
        self._look_at(tasks)
        self._carry_on(tasks)
        tensors = self._tensors()
        loss, gradients = self._compiled(tensors, tasks, self._variant())
        for value, gradient in zip(_learned(tensors), gradients, strict=True):
            if gradient is not None and not value.is_leaf:  # a tensor rate that was worked out from others
                value.backward(gradient)
            elif gradient is not None:
                gradient = laid_out_like(value, gradient)
                value.grad = gradient if value.grad is None else value.grad + gradient
        return loss

    def adapt(self, support: Any, steps: int | None = None) -> nn.Module:
        """A plain module of the user's own class, adapted to one task.

        Args:
            support: the support set of a single task, without task axis.
            steps: inner updates; as in training if not given.

        Returns:
            A copy of the model that holds φ: to call, save, or train further.

        Raises:
            TypeError: a whole task was passed.
            ValueError: adaptation ended in NaN or infinite parameters.
        """
        if isinstance(support, Task):
            raise TypeError("adapt expects the support set of one task; got a Task. Pass task.support.")
        with torch.no_grad():
            steps = self.steps if steps is None else steps
            adapted = self._path(support, steps)[-1]
            model = self._plain(adapted)
            self._settle_norms(model, adapted, support, steps)
        return model

    def score(self, tasks: Task, metric: Callable[..., Tensor] | None = None, steps: int | None = None) -> Tensor:
        """A metric on the query set before adaptation and after every inner step, ``[tasks, steps + 1]``.

        Args:
            tasks: a meta-batch.
            metric: ``metric(model, batch) -> scalar``; the loss if not given.
            steps: inner updates; as in training if not given.
        """
        self._look_at(tasks)
        measure = self._outer if metric is None else TaskLoss(self.model, metric)
        steps = self.steps if steps is None else steps

        def one(task: Task) -> Tensor:
            path = self._path(task.support, steps)
            query_loss = QueryLoss(measure, path, task.support)
            with self._once(steps):
                return torch.stack([query_loss(params, task.query) for params in path])

        with torch.no_grad():
            scores: Tensor = self._each(one, tasks)
        return scores

    def forward(self, tasks: Task) -> Tensor:
        """The mean meta-objective of tasks taken at once; :meth:`meta_loss` is the way in."""
        objectives: Tensor = self._each.at_once(self._task_objective, tasks)
        return objectives.mean()

    def _path(self, support: Any, steps: int) -> list[dict[str, Tensor]]:
        """[φ_0, …, φ_K] of one task."""
        adjoint = self._now(self.adjoint)
        with self._once(steps):
            return adjoint(self._step_loss, self._params(), support, self.rule, steps, self.adapts)

    def _plain(self, adapted: dict[str, Tensor]) -> nn.Module:
        """A copy of the model that holds φ and is as trainable as the one that was given."""
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self.adapts:
                    if not torch.isfinite(adapted[name]).all():
                        raise ValueError(
                            f"Adaptation made parameter {name} NaN or infinite. Check the support set for such "
                            "values; else lower the inner learning rate or take fewer steps."
                        )
                    parameter.copy_(adapted[name])
                parameter.requires_grad_(name in self._trainable)
        return model

    def _once(self, steps: int) -> AbstractContextManager[None]:
        """Inside, what ``steps`` steps do not move is worked out once, unless it is random."""
        random = self._observed is None or self._observed.stochastic
        return nullcontext() if random or steps < 2 else self._unmoved.worked_out_once()

    def _task_objective(self, task: Task) -> Tensor:
        return self._objective_of(self._path(task.support, self.steps), task)

    def _objective_of(self, path: list[dict[str, Tensor]], task: Task) -> Tensor:
        value: Tensor = self._now(self.objective)(QueryLoss(self._outer, path, task.support), path, task)
        return value

    # Normalisation that depends on the task

    def _settle_norms(self, model: nn.Module, adapted: dict[str, Tensor], support: Any, steps: int) -> None:
        """Leaves in the norms of an adapted model what they need to know of its adaptation."""
        norms = [(own, its) for own, its in zip(self.model.modules(), model.modules(), strict=True)]
        if any(isinstance(own, BatchNorm) for own, _ in norms):
            with recording() as statistics, inner_step(max(steps - 1, 0)):
                self._inner(adapted, support)
            for own, its in norms:
                if isinstance(own, BatchNorm) and isinstance(its, BatchNorm):
                    its.settle(steps, statistics.get(own))

    def _carry_on(self, tasks: Task) -> None:
        """Running norms and rules keep what goes on from task to task, as the first task of a meta-batch shows it."""
        running = [module for module in self.model.modules() if isinstance(module, RunningNorm)]
        carry = getattr(self.rule, "carry", None)
        if not self.training or not (running or carry):
            return
        task, steps = tasks[0], [gradient_and_value] * self.steps
        with torch.no_grad(), replayed():
            if carry:
                carry(path_and_state(steps, self._step_loss, self._params(), task.support, self.rule, self.adapts)[1])
            if running:
                path = self._path(task.support, self.steps)
                with recording() as statistics:
                    self._outer(path[-1], task.query)
                for norm in running:
                    if norm in statistics:
                        norm.update(*statistics[norm])

    def _params(self) -> dict[str, Tensor]:
        params: dict[str, Tensor] = dict(self.model.named_parameters())
        if isinstance(self.inner_loss, nn.Module):
            params.update({LOSS_PREFIX + name: value for name, value in self.inner_loss.named_parameters()})
        return params

    def _now(self, choice: Any) -> Any:
        return choice.choice(self.iteration) if isinstance(choice, Scheduled) else choice

    # The first meta-batch shows what goes together

    def _look_at(self, tasks: Task) -> None:
        """The first time: check that tasks, model and loss go together, and settle how tasks are batched."""
        if self._observed is not None:
            return
        with replayed():  # a resumed run looks again, and must draw the same numbers as one that was not stopped
            self._observed = self._look(tasks)

    def _look(self, tasks: Task) -> Observed:
        check_rule(self.rule, self._params())
        observed = check_task(self._inner, self.model, self._params(), self.adapts, tasks)
        self._each.settle(self._task_objective, tasks, observed.saved_bytes)
        if self.compiles and observed.stochastic and isinstance(self._now(self.adjoint), Recomputed):
            raise ValueError("compile=True cannot replay the dropout of a Recomputed step; use adjoint=Unrolled().")
        return observed

    # Compiling: everything the loss depends on becomes an input of the graph

    def _compiles(self, tasks: Task) -> bool:
        if on_cpu(tasks):
            return self.compiles is True and not compiler_missing()
        return bool(self.compiles)

    def _nothing_compiled(self) -> CompiledGradient:
        return CompiledGradient(self._loss_from, self._each.parts, fuses=self.compiles is True)

    def _variant(self) -> tuple[Any, ...]:
        return (self.training, self._now(self.adjoint), self._now(self.objective), self.steps)

    def _tensors(self) -> list[Tensor]:
        return [*self.parameters(), *self.buffers()]

    def _loss_from(self, tensors: Any, tasks: Task) -> Tensor:
        names = [name for name, _ in (*self.named_parameters(), *self.named_buffers())]
        return functional_call(self, dict(zip(names, tensors, strict=True)), (tasks,))

    def _apply(self, *args: Any, **kwargs: Any) -> MetaLearner:
        self._compiled = self._nothing_compiled()  # another device or dtype
        return super()._apply(*args, **kwargs)

    def _check_choices(self) -> None:
        for name in ("init", "update"):
            if not callable(getattr(self.rule, name, None)):
                raise TypeError(f"rule must have init and update (see fewstep.Rule); got {type(self.rule).__name__}.")
        params = self._params()
        self.rule.init({name: params[name] for name in self.adapts})
        adjoint, objective = self._now(self.adjoint), self._now(self.objective)
        if not callable(adjoint) or not callable(objective):
            raise TypeError(f"adjoint and objective must be callable; got {adjoint!r} and {objective!r}.")
        if getattr(adjoint, "ends_only", False):
            if self._step_loss is not self._inner:
                raise ValueError(
                    f"{type(adjoint).__name__} differentiates the minimum of one loss, and inner_batch gives each step "
                    "a loss of its own; leave inner_batch out, or use Unrolled, Recomputed or FirstOrder."
                )
            if getattr(objective, "weights", None):
                raise ValueError(
                    f"{type(adjoint).__name__} differentiates the end of adaptation only, and {objective} weighs the "
                    "steps before it; use query_loss, or Unrolled or Recomputed."
                )
            learned = [name for name, value in rule_tensors(self.rule).items() if value.requires_grad]
            if learned:
                raise ValueError(
                    f"{type(adjoint).__name__} gives no gradient to the rule's learned parameters {learned}; use a "
                    "rule without any, such as GradientDescent."
                )


def _learned(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.requires_grad]

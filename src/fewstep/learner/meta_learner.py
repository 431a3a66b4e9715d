"""The meta-learner: shared parameters, and the five choices that make an algorithm of the family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.adaptation import Adjoint, Recomputed, Rule, Unrolled
from fewstep.adaptation.inner_loop import gradient_and_value, path_and_state
from fewstep.adaptation.random_numbers import replayed
from fewstep.adaptation.rules import Params
from fewstep.compiling import CompiledGradient, compiler_missing
from fewstep.learner.checks import check_loss
from fewstep.learner.each_task import EachTask, Tasks, on_cpu
from fewstep.learner.functional_loss import FunctionalLoss
from fewstep.learner.gradients import laid_out_like, outside_inference_mode, with_gradients
from fewstep.learner.learner import Learner, Model, learned_of
from fewstep.learner.look import Look
from fewstep.learner.looks import TRAINING
from fewstep.learner.scheduled import Scheduled
from fewstep.learner.selection import Names
from fewstep.models.context import inner_step, recording
from fewstep.models.normalization import BatchNorm, RunningNorm
from fewstep.models.stand_in import stand_in
from fewstep.objectives import Objective, query_loss
from fewstep.tasks import Task, trees


class MetaLearner(Learner[Model]):
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
        super().__init__(
            model,
            loss,
            rule=rule,
            steps=steps,
            adapts=adapts,
            adjoint=adjoint,
            objective=objective,
            learns=learns,
            inner_loss=inner_loss,
            inner_batch=inner_batch,
            each=EachTask(vectorize, chunk),
            compile=compile,
        )
        self._compiled = CompiledGradient(fuses=compile is True)

    def meta_loss(self, tasks: Tasks) -> Float[Tensor, ""]:
        """The meta-objective, averaged over the tasks of a meta-batch; a scalar ready for ``backward()``.

        Args:
            tasks: a :class:`fewstep.tasks.Task` whose tensors have a leading task axis, or a list of tasks without one,
                which are taken one by one and may differ in shape.

        Raises:
            ValueError: a kind of meta-batch that was not seen before shows something that cannot work (see
                :mod:`fewstep.learner.look`).
        """
        with outside_inference_mode(tasks) as tasks:
            if not torch.is_grad_enabled():
                return self._mean_objective(tasks)
            if not self._compiles(tasks):
                return self._mean_objective(tasks, self._carry_on)
            value, learned, gradients = self._compiled_gradient(tasks)
            return with_gradients(value, learned, gradients)

    def meta_gradient(self, tasks: Tasks) -> Float[Tensor, ""]:
        """``meta_loss(tasks).backward()`` in one: the gradient is added to each parameter's ``grad``.

        The same numbers; without the way through autograd, a third less time for a small compiled meta-step.

        Returns:
            The meta-objective, detached.
        """
        overridden = type(self).meta_loss is not MetaLearner.meta_loss
        if overridden or not self._compiles(tasks) or any(t.requires_grad for t in trees.tensors(tasks)):
            return super().meta_gradient(tasks)
        loss, learned, gradients = self._compiled_gradient(tasks)
        for value, gradient in zip(learned, gradients, strict=True):
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
        steps = self._steps(steps)
        with outside_inference_mode(support) as support, torch.no_grad():
            look = self._looks.at([Task(support, None)], None)[1]
            adapted = self._choices.path(support, steps, reuse=not look.stochastic)[-1]
            model: Model = self._choices.adapted_module(adapted, self._trainable)
            self._settle_norms(model, adapted, support, steps)
        return model

    def score(
        self, tasks: Tasks, metric: Callable[..., Tensor] | None = None, steps: int | None = None
    ) -> Float[Tensor, "tasks path"]:
        """A metric on the query set before adaptation and after every inner step, ``[tasks, steps + 1]``.

        Args:
            tasks: a meta-batch, or a list of tasks.
            metric: ``metric(model, batch) -> scalar``; the loss if not given.
            steps: inner updates; as in training if not given.
        """
        if metric is not None:
            check_loss(metric, "metric")
        measure = self._choices.outer if metric is None else FunctionalLoss(self.model, metric)
        steps = self._steps(steps)
        one = partial(self._choices.scores, measure=measure, steps=steps)
        with outside_inference_mode(tasks) as tasks, torch.no_grad():
            look = self._looks.at(tasks, one, metric)[1]
            scores: Tensor = look.each(partial(one, reuse=not look.stochastic), tasks)
        return scores

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
        running = [module for module in self._looks.modules if isinstance(module, RunningNorm)]
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

    # Compiling: everything the loss depends on becomes an input of the graph

    def _compiles(self, tasks: Tasks) -> bool:
        if not isinstance(tasks, Task):
            return False
        if on_cpu(tasks):
            return self.compiles is True and not compiler_missing()
        return bool(self.compiles)

    def _compiled_gradient(self, tasks: Any) -> tuple[Tensor, list[Tensor], list[Tensor | None]]:
        """The meta-objective, what it is differentiated in, and its gradient for that."""
        find_learned = partial(self._learned, tasks)
        key, look = self._looks.at(tasks, self._choices.objective_of, TRAINING, find_learned)
        if look.stochastic and isinstance(self._choices.adjoint, Recomputed):
            raise ValueError("compile=True cannot replay the dropout of a Recomputed step; use adjoint=Unrolled().")
        if look.mixes_modes:
            raise ValueError(
                "compile=True cannot trace a loss that takes forward-mode derivatives of reverse-mode ones, as "
                "torch.func.hessian does: PyTorch crashes. Use torch.func.jacrev(torch.func.grad(...)), or "
                "compile=False."
            )
        if look.others:
            raise ValueError(
                f"compile=True takes a tensor of shape {tuple(look.others[0].shape)} that requires a gradient, and is "
                "no parameter of the learner, for a constant. Make it a parameter of the model, the loss or the rule."
            )
        self._carry_on(tasks)
        function, tensors = partial(self._loss_from, look), self._tensors()
        kind = key, self._choices.objective
        value, gradients = self._compiled(function, tensors, tasks, kind, look.each.parts)
        return value, learned_of((*tensors, *trees.tensors(tasks))), gradients

    def _loss_from(self, look: Look, tensors: Sequence[Tensor], tasks: Task) -> Tensor:
        """The mean objective of tasks, with other tensors in place of all parameters and buffers."""
        own = {id(value): tensor for value, tensor in zip(self._tensors(), tensors, strict=True)}
        known: dict[int, Any] = {}
        parts = {name: getattr(self._choices, name) for name in ("model", "loss", "inner_loss", "rule", "objective")}
        choices = self._choices.but(
            **{n: stand_in(p, own, None, known) if isinstance(p, nn.Module) else p for n, p in parts.items()}
        )
        objectives: Tensor = look.each.at_once(partial(choices.objective_of, reuse=not look.stochastic), tasks)
        return objectives.mean()

    def _apply(self, *args: Any, **kwargs: Any) -> MetaLearner[Model]:
        self._compiled = CompiledGradient(fuses=self.compiles is True)  # another device or dtype
        return super()._apply(*args, **kwargs)

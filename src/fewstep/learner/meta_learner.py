"""The meta-learner: shared parameters θ, and the five choices that define an algorithm of the MAML family."""

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
from fewstep.learner.checks import check_metric
from fewstep.learner.choices import Scores
from fewstep.learner.each_task import EachTask, Tasks, on_cpu
from fewstep.learner.first_check import FirstCheck
from fewstep.learner.first_checks import TRAINING
from fewstep.learner.functional_loss import FunctionalLoss
from fewstep.learner.gradients import Gradient, laid_out_like, outside_inference_mode, scaled, summed, with_gradients
from fewstep.learner.learner import Learner, Model, learned_of
from fewstep.learner.scheduled import Scheduled
from fewstep.learner.selection import Names
from fewstep.models.context import inner_step, recording
from fewstep.models.normalization import BatchNorm, RunningNorm
from fewstep.models.stand_in import stand_in
from fewstep.objectives import Objective, query_loss
from fewstep.parallel import current
from fewstep.tasks import Task, trees


class MetaLearner(Learner[Model]):
    """A model whose parameters θ are learned such that a few inner steps adapt it to a task (MAML, Algorithm 1).

    φ_0 = θ, φ_{k+1} = U(φ_k, ∇L(φ_k; support)), and the outer loop minimises the mean over tasks of L(φ_K; query), or
    another objective. The outer optimiser learns ``parameters()``: θ, learned rates, a learned loss. The learner works
    on a copy of the model; the module that is passed in is never modified.

    Args:
        model: any ``nn.Module``.
        loss: ``loss(model, batch) -> scalar``. It may call the model and its methods any number of times.
        rule: the inner update U, such as [`SGD`][fewstep.SGD] or any other [`Rule`][fewstep.Rule].
        steps: the number of inner steps, K. With 0, all tasks are learned jointly (pretraining).
        adapts: one or more name patterns of the parameters that the inner loop changes, such as ``"head.*"`` or
            ``["*", "!head.*"]``; see [`select`][fewstep.learner.select].
        adjoint: how dφ/dθ is computed: an [`Adjoint`][fewstep.Adjoint], or a [`Scheduled`][fewstep.Scheduled] one.
        objective: what the outer loop minimises, such as [`query_loss`][fewstep.query_loss], or a
            [`Scheduled`][fewstep.Scheduled] objective.
        learns: one or more name patterns of the parameters that the outer loop learns.
        inner_loss: the loss of the inner loop, if it differs from ``loss``. The parameters of an ``nn.Module`` are
            learned (a learned loss).
        inner_batch: the maximum number of support examples per inner step; consecutive steps use different examples, in
            turn. ``None`` uses all of them at every step.
        vectorize: ``True`` evaluates all tasks at once (``torch.vmap``), ``False`` one after the other. ``"auto"`` uses
            ``torch.vmap`` except where it does not support the model, and on a CPU where the activations of one task
            take more than ``fewstep.learner.VMAP_LIMIT`` bytes.
        chunk: the maximum number of tasks that ``torch.vmap`` evaluates at once, which limits memory. A compiled
            meta-step always evaluates all tasks at once.
        compile: ``True`` compiles the whole meta-step: to one C++ function on a CPU, to fused kernels that are recorded
            as a CUDA graph on a GPU. The first call takes seconds for a small network and minutes for several steps
            of a convolutional one. ``"record"`` records a CUDA graph without compiling (about a second) and has no
            effect on a CPU. Numbers that are not parameters, such as a fixed inner learning rate, become constants.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or the combination of arguments or a module is not supported. The
            message names the module or parameter and the fix.

    Examples:
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
        """Compute the mean meta-objective of a meta-batch, a scalar ready for ``backward()``.

        Args:
            tasks: a [`Task`][fewstep.tasks.Task] whose tensors are ``[tasks, examples, ...]``, or a list of tasks
                without the task axis, which may differ in shape and are evaluated one after the other.

        Raises:
            TypeError: ``tasks`` is not a task or a list of tasks, or the loss does not return a tensor.
            ValueError: the data, the model or the loss cannot be meta-learned. Checked on the first task whenever the
                shapes, dtypes or modes are new.
            RuntimeError: on a GPU with ``compile``, the model or the loss reads numbers back from the device.
        """
        with outside_inference_mode(tasks) as tasks:
            if not torch.is_grad_enabled():
                return self._mean_objective(tasks)
            if not self._compiles(tasks):
                return self._mean_objective(tasks, self._update_running_state)
            value, learned, gradients = self._compiled_gradient(tasks)
            return with_gradients(value, learned, gradients)

    def meta_gradient(self, tasks: Tasks) -> Float[Tensor, ""]:
        """Add the gradient of the meta-objective to each parameter's ``grad``.

        The result is that of ``meta_loss(tasks).backward()``. A small compiled meta-step takes a third less time, since
        autograd is not involved.

        Args:
            tasks: as for [`meta_loss`][fewstep.MetaLearner.meta_loss].

        Returns:
            The meta-objective, detached.
        """
        overridden = type(self).meta_loss is not MetaLearner.meta_loss
        if overridden or not self._compiles(tasks) or any(t.requires_grad for t in trees.tensors(tasks)):
            return super().meta_gradient(tasks)
        loss, learned, gradients = self._compiled_gradient(tasks)
        for value, gradient in zip(learned, gradients, strict=True):
            if gradient is not None and not value.is_leaf:  # a rate that was computed from other tensors
                value.backward(gradient)
            elif gradient is not None:
                gradient = laid_out_like(value, gradient)
                value.grad = gradient if value.grad is None else value.grad + gradient
        return loss

    def adapt(self, support: Any, steps: int | None = None) -> Model:
        """Adapt to one task; returns a plain module of the model's class.

        Args:
            support: the support set of one task, without a task axis: ``[examples, ...]``.
            steps: the number of inner steps; ``None`` takes as many as in training.

        Returns:
            A copy of the model with the parameters φ, which can be called, saved or trained further. It is in the mode
            of the learner, at first training mode; before predictions with dropout, call ``.eval()`` on either.

        Raises:
            TypeError: a whole task was passed instead of its support set.
            ValueError: the support set has a task axis, adaptation ended in NaN or infinite parameters, or as for
                [`meta_loss`][fewstep.MetaLearner.meta_loss].
        """
        if isinstance(support, Task):
            raise TypeError("adapt expects the support set of one task; got a Task. Pass task.support.")
        steps = self._steps(steps)
        self._checks.check_one_task(support)
        with outside_inference_mode(support) as support, torch.no_grad():
            check = self._checks.result([Task(support, None)], None)[1]
            adapted = self._choices.path(support, steps, reuse=not check.stochastic)[-1]
            model: Model = self._choices.adapted_module(adapted, self._trainable)
            self._store_norm_statistics(model, adapted, support, steps)
        return model

    def score(
        self, tasks: Tasks, metric: Callable[..., Any] | None = None, steps: int | None = None
    ) -> Float[Tensor, "tasks path"]:
        """Compute a metric on the query set before adaptation and after every inner step.

        Args:
            tasks: as for [`meta_loss`][fewstep.MetaLearner.meta_loss].
            metric: a function of (model, batch) that returns a scalar tensor or a number; ``None`` takes the loss. A
                metric that returns numbers, such as [`array_metric`][fewstep.array_metric], is evaluated outside vmap,
                one task at a time.
            steps: the number of inner steps; ``None`` takes as many as in training.

        Returns:
            The metric, ``[tasks, steps + 1]``.

        Raises:
            TypeError: the metric is not a function of (model, batch), or does not return a scalar.
        """
        if metric is not None:
            check_metric(metric)
        measure = self._choices.outer if metric is None else FunctionalLoss(self.model, metric)
        steps = self._steps(steps)
        one = Scores(self._choices, measure, steps)
        with outside_inference_mode(tasks) as tasks, torch.no_grad():
            check = self._checks.result(tasks, one, metric)[1]
            scores: Tensor = check.each(partial(one, reuse=not check.stochastic), tasks)
        return scores

    # Normalisation that depends on the task

    def _store_norm_statistics(self, model: nn.Module, adapted: Params, support: Any, steps: int) -> None:
        """Store the statistics and the step count of adaptation in the norm layers of an adapted model."""
        pairs = list(zip(self.model.modules(), model.modules(), strict=True))
        if any(isinstance(original, BatchNorm) for original, _ in pairs):
            with recording() as statistics, inner_step(max(steps - 1, 0)):
                self._choices.inner(adapted, support)
            for original, copied in pairs:
                if isinstance(original, BatchNorm) and isinstance(copied, BatchNorm):
                    copied.store_adaptation(steps, statistics.get(original))

    def _update_running_state(self, tasks: Tasks) -> None:
        """Update running norms, and what a rule carries between tasks, with the first task of a meta-batch."""
        running = [module for module in self._checks.modules if isinstance(module, RunningNorm)]
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

    # Compilation: everything that the loss depends on becomes an input of the graph

    def _compiles(self, tasks: Tasks) -> bool:
        if not isinstance(tasks, Task):
            return False
        if current().size > 1 and any(tensor.requires_grad for tensor in trees.tensors(tasks)):
            return False  # each process compiles its own share of the data
        if on_cpu(tasks):
            return self.compiles is True and not compiler_missing()
        return bool(self.compiles)

    def _compiled_gradient(self, tasks: Any) -> tuple[Tensor, list[Tensor], list[Tensor | None]]:
        """The meta-objective, the tensors that require its gradient, and the gradient."""
        find_learned = partial(self._learned, tasks)
        key, check = self._checks.result(tasks, self._choices.objective_of, TRAINING, find_learned)
        if check.stochastic and isinstance(self._choices.adjoint, Recomputed):
            raise ValueError("compile=True cannot replay the dropout of a Recomputed step. Use adjoint=Unrolled().")
        if check.mixes_modes:
            raise ValueError(
                "compile=True cannot trace a loss that combines forward-mode and reverse-mode derivatives, as "
                "torch.func.hessian does: PyTorch crashes. Use torch.func.jacrev(torch.func.grad(...)), or "
                "compile=False."
            )
        if check.external:
            raise ValueError(
                f"compile=True would treat a tensor of shape {tuple(check.external[0].shape)} as a constant: it "
                "requires a gradient but is not a parameter of the learner. Make it a parameter of the model, the loss "
                "or the rule."
            )
        self._update_running_state(tasks)
        function, tensors = partial(self._loss_from, check), self._tensors()
        kind = key, self._choices.objective
        processes = current()
        own, counted = processes.own_tasks(tasks)
        learned = learned_of((*tensors, *trees.tensors(tasks)))

        def of_own_tasks() -> Gradient:
            value, gradients = self._compiled(function, tensors, own, kind, check.each.parts)
            return (value, gradients) if processes.size == 1 else scaled(value, gradients, counted / len(tasks))

        value, gradients = summed(processes, of_own_tasks, learned)
        return value, learned, gradients

    def _loss_from(self, check: FirstCheck, tensors: Sequence[Tensor], tasks: Task) -> Tensor:
        """The mean objective of the tasks, with ``tensors`` in place of all parameters and buffers."""
        own = {id(value): tensor for value, tensor in zip(self._tensors(), tensors, strict=True)}
        known: dict[int, Any] = {}
        parts = {name: getattr(self._choices, name) for name in ("model", "loss", "inner_loss", "rule", "objective")}
        choices = self._choices.replaced(
            **{n: stand_in(p, own, None, known) if isinstance(p, nn.Module) else p for n, p in parts.items()}
        )
        objectives: Tensor = check.each.at_once(partial(choices.objective_of, reuse=not check.stochastic), tasks)
        return objectives.mean()

    def _apply(self, *args: Any, **kwargs: Any) -> MetaLearner[Model]:
        self._compiled = CompiledGradient(fuses=self.compiles is True)  # another device or dtype
        return super()._apply(*args, **kwargs)

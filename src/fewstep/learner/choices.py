"""The five choices as functions of parameters and one task: the path of adaptation, and its objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.adaptation import Adjoint, Rule
from fewstep.adaptation.rules import Params
from fewstep.learner.checks import check_instance, metric_value, rule_tensors
from fewstep.learner.functional_loss import LOSS_PREFIX, FunctionalLoss, MinibatchLoss, QueryLoss
from fewstep.learner.reuse import UnadaptedModules
from fewstep.learner.scheduled import at_iteration
from fewstep.models.stand_in import own_copy
from fewstep.objectives import Objective, multi_step_loss
from fewstep.tasks import Task


class Choices:
    """Model, losses, rule, adjoint and objective, as functions of parameters and one task.

    The functions modify none of them.

    Args:
        model: f.
        loss: the loss of the outer loop.
        inner_loss: the loss of the inner loop.
        rule: U.
        steps: K.
        adapts: names of the parameters that the inner loop changes.
        adjoint: how dφ/dθ is computed, or a [`Scheduled`][fewstep.Scheduled] adjoint.
        objective: what the outer loop minimises, or a [`Scheduled`][fewstep.Scheduled] objective.
        inner_batch: the maximum number of support examples per inner step; ``None`` for all.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor],
        inner_loss: Callable[..., Tensor],
        rule: Rule,
        steps: int,
        adapts: Sequence[str],
        adjoint: Any,
        objective: Any,
        inner_batch: int | None = None,
    ) -> None:
        self.model, self.loss, self.inner_loss, self.rule = model, loss, inner_loss, rule
        self.steps, self.adapts, self.inner_batch = steps, list(adapts), inner_batch
        self._adjoint, self._objective = adjoint, objective
        self.iteration = 0
        self.compares = True
        """Whether first checks compare second derivatives with finite differences."""
        self.outer = FunctionalLoss(model, loss)
        self.inner = FunctionalLoss(model, inner_loss, learned=True)
        self.step_loss = self.inner if inner_batch is None else MinibatchLoss(self.inner, inner_batch)
        self.unadapted = UnadaptedModules(model, self.adapts)

    def refresh(self) -> None:
        """Find the parameters again after modules of the model were replaced.

        Raises:
            ValueError: the names of the parameters have changed.
        """
        before, now = self.outer.names, [name for name, _ in self.model.named_parameters()]
        if set(before) != set(now):
            changed = sorted(set(before) ^ set(now))
            raise ValueError(
                f"The model's parameters were added, removed or renamed after the learner was made: {changed}. Make "
                "another learner from the changed model."
            )
        self.outer.refresh()
        self.inner.refresh()
        self.unadapted = UnadaptedModules(self.model, self.adapts)

    @property
    def adjoint(self) -> Adjoint:
        """The adjoint at the current iteration."""
        found: Adjoint = at_iteration(self._adjoint, self.iteration)
        return found

    @property
    def objective(self) -> Objective:
        """The objective at the current iteration."""
        found: Objective = at_iteration(self._objective, self.iteration)
        return found

    def replaced(self, **changes: Any) -> Choices:
        """The same choices at the same iteration, with some of them replaced."""
        names = ("model", "loss", "inner_loss", "rule", "steps", "adapts", "inner_batch")
        kept = {**{name: getattr(self, name) for name in names}, "adjoint": self._adjoint, "objective": self._objective}
        other = Choices(**{**kept, **changes})
        other.iteration = self.iteration
        return other

    def params(self) -> Params:
        """θ by name, followed by the parameters of a learned loss."""
        params: Params = dict(self.model.named_parameters())
        if isinstance(self.inner_loss, nn.Module):
            models = {id(value) for value in params.values()}  # parameters shared with the model belong to the model
            own = [(name, value) for name, value in self.inner_loss.named_parameters() if id(value) not in models]
            params.update({LOSS_PREFIX + name: value for name, value in own})
        return params

    def path(
        self, support: Any, steps: int | None = None, reuse: bool = False, params: Params | None = None
    ) -> list[Params]:
        """[φ_0, …, φ_K] of one task.

        Args:
            support: the support set.
            steps: K; ``None`` takes as many as in training.
            reuse: whether outputs that adaptation does not change may be computed once and reused.
            params: φ_0; ``None`` takes the modules' parameters.
        """
        steps = self.steps if steps is None else steps
        params = self.params() if params is None else params
        with self.reusing(reuse and steps > 1):
            return self.adjoint(self.step_loss, params, support, self.rule, steps, self.adapts)

    def objective_of(self, task: Task, reuse: bool = False, params: Params | None = None) -> Tensor:
        """The meta-objective of one task."""
        path = self.path(task.support, reuse=reuse, params=params)
        if torch.is_grad_enabled():
            return self.value(path, task)
        path = _detached(path)
        with torch.enable_grad():  # some losses differentiate the model
            try:
                return self.value(path, task).detach()
            except RuntimeError as error:
                if not _needs_parameters(error):
                    raise
                for value in path[0].values():
                    if value.is_floating_point():
                        value.requires_grad_()
                for params in path[1:]:
                    for name in self.adapts:
                        params[name].requires_grad_()
                return self.value(path, task).detach()

    def value(self, path: list[Params], task: Task) -> Tensor:
        """The meta-objective of one task, given its path."""
        loss = QueryLoss(self.outer, path, task.support, self.adjoint.ends_only)
        value: Tensor = self.objective(loss, path, task)
        return value

    def adapted_module(self, adapted: Params, trainable: Sequence[str]) -> Any:
        """A copy of the model with the parameters φ.

        Args:
            adapted: φ, and the parameters that are not adapted.
            trainable: names of the parameters that require a gradient.

        Raises:
            ValueError: adaptation ended in NaN or infinite parameters.
        """
        (model,) = own_copy((self.model,))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self.adapts:
                    if not torch.isfinite(adapted[name]).all():
                        raise ValueError(
                            f"Adaptation made parameter {name} NaN or infinite. Check the support set for NaN or "
                            "infinite values; if there are none, lower the inner learning rate or take fewer steps."
                        )
                    parameter.copy_(adapted[name])
                parameter.requires_grad_(name in trainable)
        return model

    def reusing(self, reuse: bool) -> AbstractContextManager[None]:
        """A context in which, if ``reuse``, the outputs of modules that are not adapted are reused."""
        return self.unadapted.reusing() if reuse else nullcontext()

    def check(self) -> None:
        """Raise if rule, adjoint and objective cannot be combined."""
        check_instance(self.rule, "rule", "fewstep.SGD(0.1)")
        check_instance(self.adjoint, "adjoint", "fewstep.Unrolled()")
        check_instance(self.objective, "objective", "fewstep.query_loss, or fewstep.multi_step_loss([0.5, 0.5])")
        for name in ("init", "update"):
            if not callable(getattr(self.rule, name, None)):
                raise TypeError(f"rule must have init and update (see fewstep.Rule); got {type(self.rule).__name__}.")
        params = self.params()
        self.rule.init({name: params[name] for name in self.adapts})
        adjoint, objective = self.adjoint, self.objective
        if not callable(adjoint) or not callable(objective):
            raise TypeError(f"adjoint and objective must be callable; got {adjoint!r} and {objective!r}.")
        if not isinstance(adjoint, Adjoint):
            raise TypeError(f"adjoint must be a fewstep.Adjoint, such as fewstep.Unrolled(); got {adjoint!r}.")
        if not adjoint.ends_only:
            return
        if any(value.is_complex() for value in params.values()):
            raise TypeError(
                f"{type(adjoint).__name__} does not support complex parameters. Use Unrolled or Recomputed."
            )
        name = type(adjoint).__name__
        if self.inner_batch is not None:
            raise ValueError(
                f"{name} differentiates the minimum of one loss, but with inner_batch each step has a different loss. "
                "Leave inner_batch out, or use Unrolled, Recomputed or FirstOrder."
            )
        if isinstance(objective, multi_step_loss):
            raise ValueError(
                f"{name} differentiates the end of adaptation only, but {objective} depends on the steps before it. "
                "Use query_loss, or Unrolled or Recomputed."
            )
        learned = [name for name, value in rule_tensors(self.rule).items() if value.requires_grad]
        if learned:
            raise ValueError(
                f"{name} gives no gradient to the rule's learned parameters {learned}. Use a rule without learned "
                "parameters, such as GradientDescent."
            )


class Scores:
    """A metric on the query set before adaptation and after every inner step, as a function of one task.

    Args:
        choices: the choices of the learner.
        metric: the metric as a function of parameters and a batch.
        steps: the number of inner steps, K.
    """

    def __init__(self, choices: Choices, metric: FunctionalLoss, steps: int) -> None:
        self.choices, self.metric, self.steps = choices, metric, steps
        self.gives_numbers = False
        """Whether the metric returned numbers instead of tensors, and so cannot be evaluated under vmap."""

    def __call__(self, task: Task, reuse: bool = False, params: Params | None = None) -> Tensor:
        """The scores of a task, ``[steps + 1]``."""
        with torch.no_grad():
            path = _detached(self.choices.path(task.support, self.steps, reuse, params))
        query_loss = QueryLoss(self.metric, path, task.support)
        with self.choices.reusing(reuse and self.steps > 1):
            return torch.stack([self._score(query_loss, params, task.query) for params in path])

    def _score(self, metric: QueryLoss, params: Params, query: Any) -> Tensor:
        """The metric at constant parameters. Gradients are recorded, since some losses differentiate the model."""
        with torch.enable_grad():
            try:
                return self._scalar(metric(params, query), params)
            except RuntimeError as error:
                if not _needs_parameters(error):
                    raise
                # The loss differentiates the model with respect to its parameters.
                place = next(k for k, passed in enumerate(metric.path) if passed is params)
                again = {n: v.requires_grad_() if v.is_floating_point() else v for n, v in params.items()}
                return self._scalar(metric.at(place, again, query), params)

    def _scalar(self, value: Any, params: Params) -> Tensor:
        self.gives_numbers = not isinstance(value, Tensor)
        return metric_value(value, next(iter(params.values())).device)


def _detached(path: list[Params]) -> list[Params]:
    """The same path without gradients; equal entries remain the same tensor."""
    constants = {id(value): value.detach() for params in path for value in params.values()}
    return [{name: constants[id(value)] for name, value in params.items()} for params in path]


def _needs_parameters(error: RuntimeError) -> bool:
    """Whether a loss failed because it differentiates the model, whose parameters are constants here."""
    return "does not require grad" in str(error) or "not have been used" in str(error)

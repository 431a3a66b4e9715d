"""Multi-task baseline: one network per training task, averaged in parameter space (MAML, appendix C)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.adaptation import Rule
from fewstep.arguments import check_function, check_number, check_whole
from fewstep.learner import MetaLearner
from fewstep.learner.functional_loss import FunctionalLoss
from fewstep.tasks import Task

Regularizer = Callable[[Tensor], Tensor]
"""A function from one parameter of all networks, ``[count, ...]``, to a penalty per network, ``[count]``."""


def no_penalty(stacked: Tensor) -> Tensor:
    """No penalty: the networks are independent."""
    return stacked.new_zeros(len(stacked))


def l2_penalty(stacked: Tensor) -> Tensor:
    """‖θ_i‖²: weight decay of every network (MAML, appendix C)."""
    return stacked.flatten(1).square().sum(1)


def mean_penalty(stacked: Tensor) -> Tensor:
    """‖θ_i − mean θ‖²: a penalty on the distance from the mean network (MAML, appendix C)."""
    return (stacked - stacked.mean(0, keepdim=True)).flatten(1).square().sum(1)


class MultiTask(nn.Module):
    """One network per training task, trained together; at test their mean is fine-tuned (MAML, appendix C).

    Task i of every meta-batch must be the same task, as from [`SinusoidPool`][fewstep.tasks.SinusoidPool]. All networks
    start from the model's parameters.

    Args:
        model: the network, which is copied.
        loss: ``loss(model, batch) -> scalar``.
        count: the number of networks, and of tasks.
        rule: the rule that fine-tunes the mean at test.
        regularizer: [`no_penalty`][fewstep.baselines.no_penalty], [`l2_penalty`][fewstep.baselines.l2_penalty],
            [`mean_penalty`][fewstep.baselines.mean_penalty], or another.
        weight: the weight of the penalty.

    Examples:
        >>> import fewstep
        >>> pool = fewstep.tasks.SinusoidPool(fewstep.tasks.Sinusoids(), count=3)
        >>> network = fewstep.models.MLP(1, [8], 1)
        >>> learner = MultiTask(network, fewstep.mse, 3, fewstep.GradientDescent(0.01), l2_penalty, weight=1e-3)
        >>> learner.meta_loss(pool.sample(3)).backward()
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor],
        count: int,
        rule: Rule,
        regularizer: Regularizer = no_penalty,
        weight: float = 0.0,
    ) -> None:
        super().__init__()
        check_whole("MultiTask", count=count)
        check_number("MultiTask", 0, weight=weight)
        check_function("MultiTask", "a function of a stacked parameter", regularizer=regularizer)
        self.loss, self.regularizer, self.weight = loss, regularizer, weight
        self._average = MetaLearner(copy.deepcopy(model), loss, rule=rule, steps=1).requires_grad_(False)
        self._names = [name for name, _ in self._average.model.named_parameters()]
        self.networks = nn.ParameterList(
            value.detach().unsqueeze(0).repeat(count, *[1] * value.ndim)
            for _, value in self._average.model.named_parameters()
        )
        self._task_loss = FunctionalLoss(self._average.model, loss)

    def meta_loss(self, tasks: Task) -> Tensor:
        """Compute the loss of every network on the query set of its task, plus penalties, averaged."""
        params = dict(zip(self._names, self.networks, strict=True))
        losses = torch.vmap(self._task_loss)(params, tasks.query)
        if self.weight:
            losses = losses + self.weight * torch.stack([self.regularizer(value) for value in self.networks]).sum(0)
        return losses.mean()

    def average(self) -> MetaLearner[Any]:
        """Return a learner whose θ is the mean of all networks."""
        with torch.no_grad():
            for value, stacked in zip(self._average.model.parameters(), self.networks, strict=True):
                value.copy_(stacked.mean(0))
        return self._average

    def score(self, tasks: Task, metric: Callable[..., Any] | None = None, steps: int | None = None) -> Tensor:
        """As [`score`][fewstep.MetaLearner.score], fine-tuning the mean of all networks."""
        return self.average().score(tasks, metric, steps)

    def adapt(self, support: Any, steps: int | None = None) -> nn.Module:
        """As [`adapt`][fewstep.MetaLearner.adapt], from the mean of all networks; in the mode of the learner."""
        return self.average().adapt(support, steps)

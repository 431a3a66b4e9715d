"""Meta-objectives: what the outer loop minimises, for each task.

An objective is a function ``(loss, path, task) -> scalar``, where ``path`` is [φ_0, …, φ_K], the parameters before and
after each inner step, and ``loss(params, batch)`` is the loss of one task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from fewstep.adaptation.inner_loop import Loss
from fewstep.adaptation.rules import Params
from fewstep.arguments import check_number
from fewstep.objectives.losses import Scalar
from fewstep.tasks import Task


class Objective(Protocol):
    """The interface of meta-objectives."""

    def __call__(self, loss: Loss, path: list[Params], task: Task) -> Scalar:
        """Compute the meta-objective of one task.

        Args:
            loss: ``loss(params, batch)`` gives a scalar. ``params`` must be an entry of ``path``.
            path: [φ_0, …, φ_K], each with the parameters that are not adapted.
            task: one task, without a task axis.
        """
        ...


def query_loss(loss: Loss, path: list[Params], task: Task) -> Scalar:
    """The loss on the query set after the last inner step: L(φ_K; query) (MAML, equation 1).

    Args:
        loss: ``loss(params, batch)`` gives a scalar.
        path: [φ_0, …, φ_K], the parameters before and after each inner step.
        task: one task, without a task axis.

    Examples:
        >>> import torch, fewstep
        >>> learner = fewstep.maml(torch.nn.Linear(1, 1), fewstep.mse, 0.1, objective=query_loss)  # the default
    """
    return loss(path[-1], task.query)


@dataclass(frozen=True)
class multi_step_loss:  # noqa: N801 - reads as a function where it is used, beside query_loss
    """A weighted sum of the query losses after every inner step: Σ_k w_k·L(φ_k; query) (MAML++, section 4).

    Args:
        weights: one for each inner step; the first is for φ_1.

    Raises:
        ValueError: at the first meta-batch, the number of weights is not that of the inner steps, or all are 0.

    Examples:
        >>> multi_step_loss.annealed(steps=4, epoch=0, epochs=10).weights
        (0.25, 0.25, 0.25, 0.25)
    """

    weights: tuple[float, ...]

    def __init__(self, weights: Sequence[float]) -> None:
        if not isinstance(weights, Sequence) or isinstance(weights, str) or not weights:
            raise TypeError(f"multi_step_loss: weights must be a list with a number per inner step; got {weights!r}.")
        named: Any = {f"weights[{place}]": weight for place, weight in enumerate(weights)}
        check_number("multi_step_loss", **named)
        object.__setattr__(self, "weights", tuple(float(weight) for weight in weights))

    @classmethod
    def annealed(cls, steps: int, epoch: int, epochs: int) -> multi_step_loss:
        """The weights of MAML++: equal at epoch 0, all on the last step from epoch ``epochs`` on.

        The weight of step k < K is max(1/K − epoch/(K·epochs), 0.03/K) while epoch < epochs; the last step has the
        rest.

        Args:
            steps: the number of inner steps, K.
            epoch: the current epoch, from 0.
            epochs: the epoch from which only the last step counts.
        """
        if epoch >= epochs:
            return cls([0.0] * (steps - 1) + [1.0])
        early = max(1 / steps - epoch / (steps * epochs), 0.03 / steps)
        return cls([early] * (steps - 1) + [1 - early * (steps - 1)])

    def __call__(self, loss: Loss, path: list[Params], task: Task) -> Scalar:
        if len(self.weights) != len(path) - 1:
            raise ValueError(
                f"multi_step_loss has {len(self.weights)} weights but adaptation took {len(path) - 1} steps; "
                "give one weight per inner step."
            )
        terms = [w * loss(params, task.query) for w, params in zip(self.weights, path[1:], strict=True) if w != 0]
        if not terms:
            raise ValueError("multi_step_loss: every weight is 0; at least one must be different from 0.")
        return sum(terms[1:], terms[0])


def reptile_loss(loss: Loss, path: list[Params], task: Task) -> Scalar:
    """The objective whose gradient is Reptile's θ − φ_K (Nichol et al. 2018, Algorithm 2).

    It is ½‖θ − φ_K‖², where φ_K is treated as a constant. The query set is not used.

    Args:
        loss: not used.
        path: [φ_0, …, φ_K], the parameters before and after each inner step.
        task: not used.

    Raises:
        ValueError: there is no inner step.

    Examples:
        >>> import torch
        >>> reptile_loss(None, [{"w": torch.tensor(1.0)}, {"w": torch.tensor(3.0)}], None).item()
        2.0
    """
    start, end = path[0], path[-1]
    moved = [name for name in start if end[name] is not start[name]]
    if not moved:
        raise ValueError("reptile_loss needs at least one inner step: θ − φ_K is 0 for steps=0.")
    return 0.5 * torch.stack([(start[name] - end[name].detach()).square().sum() for name in moved]).sum()

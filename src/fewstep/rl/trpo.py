"""Trust-region policy optimisation as the outer optimiser (Schulman et al. 2015; MAML, section 5.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.adaptation.implicit import conjugate_gradients
from fewstep.arguments import check_number, check_whole
from fewstep.rl.checks import check_learner
from fewstep.rl.fisher import FisherProduct, mean_kl
from fewstep.rl.meta_policy import MetaPolicy
from fewstep.rl.reports import Reports
from fewstep.tasks import Task

Product = Callable[[Sequence[Tensor]], Sequence[Tensor]]


class TRPO(torch.optim.Optimizer):
    """Trust-region policy optimisation of the meta-objective (Schulman et al. 2015; MAML, section 5.3).

    Each step minimises the learner's meta-objective subject to mean KL(old ‖ new) ≤ ``max_kl`` of the adapted policies.
    Its direction x solves (JᵀFJ + damping·I)·x = −gradient by conjugate gradients, its length follows from the
    quadratic model of the divergence, and a backtracking line search checks objective and divergence on the sampled
    episodes. If no step length is accepted, the parameters do not change. Use it with [`fit`][fewstep.fit], which calls
    ``meta_step`` with each meta-batch.

    Args:
        learner: the learner, whose parameters that require a gradient are learned.
        max_kl: the bound of the divergence, in nats.
        cg_steps: the number of iterations of conjugate gradients.
        damping: the number added to the diagonal of the Fisher matrix.
        backtracks: the number of step lengths to try.
        shrink: the ratio of successive step lengths.
        cg_tasks: the number of tasks of the meta-batch over which the Fisher matrix is averaged; fewer reduce the cost.
            ``None`` uses all.

    Raises:
        ValueError: an argument is out of range.
        TypeError: ``step`` is called instead of ``meta_step``.

    Examples:
        >>> import fewstep
        >>> from fewstep import rl
        >>> rollouts = rl.Rollouts(rl.environments.PointNavigation(num_envs=20), episodes=5, horizon=10)
        >>> learner = rl.MetaPolicy(rl.GaussianPolicy(2, 2, [8]), rollouts, rule=fewstep.GradientDescent(0.1))
        >>> optimizer = TRPO(learner)
        >>> loss = optimizer.meta_step(rl.EnvironmentTasks(rollouts.environment).sample(4))
        >>> sorted(optimizer.report())
        ['kl', 'return_after', 'return_before', 'step_found']
    """

    def __init__(
        self,
        learner: MetaPolicy,
        max_kl: float = 0.01,
        cg_steps: int = 10,
        damping: float = 1e-5,
        backtracks: int = 15,
        shrink: float = 0.8,
        cg_tasks: int | None = None,
    ) -> None:
        check_learner("TRPO", learner)
        check_number("TRPO", 0, above=True, max_kl=max_kl)
        check_number("TRPO", 0, damping=damping)
        check_number("TRPO", 0, 1, above=True, shrink=shrink)
        if shrink == 1:
            raise ValueError("TRPO: shrink must be less than 1, or all step lengths are the same; got 1.")
        check_whole("TRPO", cg_steps=cg_steps, backtracks=backtracks)
        if cg_tasks is not None:
            check_whole("TRPO", cg_tasks=cg_tasks)
        settings = {
            "max_kl": max_kl, "cg_steps": cg_steps, "damping": damping, "backtracks": backtracks, "shrink": shrink,
            "cg_tasks": cg_tasks,
        }  # fmt: skip
        super().__init__([value for value in learner.parameters() if value.requires_grad], settings)
        self._learner = learner
        self._reports = Reports()

    def step(self, closure: Any = None) -> Any:
        raise TypeError(
            "TRPO.step() is not supported, since a step samples episodes. Call meta_step(tasks), or use fewstep.fit."
        )

    def meta_step(self, tasks: Task) -> Tensor:
        """Sample the episodes of a meta-batch and take one step.

        Args:
            tasks: a meta-batch of [`EnvironmentTasks`][fewstep.rl.EnvironmentTasks], with a leading task axis.

        Returns:
            The meta-objective on these episodes after the step.
        """
        trajectories = self._learner.collect(tasks)
        loss, found, _ = self.search(trajectories)
        self._reports.add(trajectories, **found)
        return loss

    def report(self) -> dict[str, float]:
        """Return means over the steps since the last call, which ``fit`` logs with the loss.

        They are the mean returns before and after adaptation, the divergence of the step in nats (``kl``), and the
        fraction of steps for which a step length was accepted (``step_found``).
        """
        return self._reports.means()

    def direction(self, gradient: Sequence[Tensor], product: Product) -> list[Tensor]:
        """Solve (JᵀFJ + damping·I)·x = −gradient approximately by conjugate gradients.

        Args:
            gradient: the gradient of the meta-objective.
            product: the function v ↦ JᵀFJ·v, such as a [`FisherProduct`][fewstep.rl.FisherProduct].

        Returns:
            x, one tensor per parameter.
        """
        settings = self.param_groups[0]

        def damped(vector: Sequence[Tensor]) -> list[Tensor]:
            return [f + settings["damping"] * v for f, v in zip(product(vector), vector, strict=True)]

        return conjugate_gradients(damped, [-g for g in gradient], settings["cg_steps"])

    def search(
        self, trajectories: Task, product: Product | None = None
    ) -> tuple[Tensor, dict[str, float], list[Tensor]]:
        """Take the step on episodes that were sampled at the current parameters.

        Args:
            trajectories: the result of [`collect`][fewstep.rl.MetaPolicy.collect].
            product: the function v ↦ JᵀFJ·v; ``None`` uses [`FisherProduct`][fewstep.rl.FisherProduct].

        Returns:
            The meta-objective after the step, the numbers to report (``kl``, ``step_found``), and the direction.
        """
        settings = self.param_groups[0]
        at = FisherProduct(self._learner, trajectories, settings["cg_tasks"] if product is None else 0)
        direction = self.direction(at.gradient, product or at)
        # The residual of conjugate gradients is orthogonal to their solution: xᵀAx = −xᵀ·gradient.
        curvature = -sum((x * g).sum().item() for x, g in zip(direction, at.gradient, strict=True))
        if curvature > 0 and math.isfinite(curvature):
            length = math.sqrt(2 * settings["max_kl"] / curvature)
            found = self._backtrack(trajectories, [length * x for x in direction], at)
            if found is not None:
                return found[0], {"kl": found[1], "step_found": 1.0}, direction
        return at.loss, {"kl": 0.0, "step_found": 0.0}, direction

    @torch.no_grad()
    def _backtrack(
        self, trajectories: Task, step: Sequence[Tensor], before: FisherProduct
    ) -> tuple[Tensor, float] | None:
        """Move the parameters by the longest accepted fraction of ``step``; return loss and divergence, or ``None``."""
        settings, learner = self.param_groups[0], self._learner
        start = [value.clone() for value in settings["params"]]
        for backtrack in range(settings["backtracks"]):
            for value, origin, x in zip(settings["params"], start, step, strict=True):
                torch.add(origin, x, alpha=settings["shrink"] ** backtrack, out=value)
            loss, new = learner.loss_and_distributions(trajectories)
            if loss.isfinite() and loss < before.loss:
                kl = float(mean_kl(trajectories, before.distributions, new))
                if kl <= settings["max_kl"]:
                    return loss, kl
        for value, origin in zip(settings["params"], start, strict=True):
            value.copy_(origin)
        return None

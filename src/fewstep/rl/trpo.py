"""Trust-region policy optimisation as the outer optimiser (Schulman et al. 2015; MAML, section 5.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.adaptation.implicit import conjugate_gradients
from fewstep.rl.fisher import FisherProduct, mean_kl
from fewstep.rl.meta_policy import MetaPolicy
from fewstep.rl.reports import Reports
from fewstep.tasks import Task

Product = Callable[[Sequence[Tensor]], Sequence[Tensor]]


class TRPO(torch.optim.Optimizer):
    """The largest step along the natural gradient that keeps the adapted policies near what they were.

    Minimises the learner's meta-objective under mean KL(old ‖ new) ≤ ``max_kl`` of the adapted policies: the direction
    solves (JᵀFJ + damping)·x = −gradient by conjugate gradients, its length follows from the quadratic model of the
    divergence, and a backtracking search checks both objective and divergence on the sampled episodes. A step that
    fails leaves the parameters as they were. Made for [`fit`][fewstep.fit], which hands it each meta-batch.

    Args:
        learner: whose parameters that require a gradient are learned.
        max_kl: bound of the divergence.
        cg_steps: iterations of conjugate gradients.
        damping: added to the Fisher matrix.
        backtracks: step lengths that are tried.
        shrink: of each of them after the first, in terms of the one before.
        cg_tasks: the Fisher matrix is taken of the first so many tasks of the meta-batch only, which costs that much
            less; all if not given.

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
        if not max_kl > 0 or not 0 < shrink < 1 or damping < 0:
            raise ValueError(
                f"TRPO: max_kl must be positive, shrink between 0 and 1, damping at least 0; got {max_kl}, {shrink}, "
                f"{damping}."
            )
        if min(cg_steps, backtracks, cg_tasks or 1) < 1 or cg_tasks == 0:
            raise ValueError(
                f"TRPO: cg_steps, backtracks and cg_tasks must be at least 1; got {cg_steps}, {backtracks}, {cg_tasks}."
            )
        settings = {
            "max_kl": max_kl, "cg_steps": cg_steps, "damping": damping, "backtracks": backtracks, "shrink": shrink,
            "cg_tasks": cg_tasks,
        }  # fmt: skip
        super().__init__([value for value in learner.parameters() if value.requires_grad], settings)
        self._learner = learner
        self._reports = Reports()

    def step(self, closure: Any = None) -> Any:
        raise TypeError("TRPO samples episodes and searches along a line; call meta_step(tasks), or use fewstep.fit.")

    def meta_step(self, tasks: Task) -> Tensor:
        """Samples episodes of a meta-batch and takes one step.

        Args:
            tasks: of [`EnvironmentTasks`][fewstep.rl.EnvironmentTasks], with a leading task axis.

        Returns:
            The meta-objective on these episodes after the step.
        """
        trajectories = self._learner.collect(tasks)
        loss, found, _ = self.search(trajectories)
        self._reports.add(trajectories, **found)
        return loss

    def report(self) -> dict[str, float]:
        """Means over the steps since the last report; fit writes them beside the loss.

        The mean return of the meta-batches before and after adaptation, the divergence of the step taken, and the share
        of steps that were found.
        """
        return self._reports.means()

    def direction(self, gradient: Sequence[Tensor], product: Product) -> list[Tensor]:
        """x with (JᵀFJ + damping)·x = −gradient, as far as conjugate gradients come.

        Args:
            gradient: of the meta-objective.
            product: v ↦ JᵀFJ·v, such as a [`FisherProduct`][fewstep.rl.FisherProduct].
        """
        settings = self.param_groups[0]

        def damped(vector: Sequence[Tensor]) -> list[Tensor]:
            return [f + settings["damping"] * v for f, v in zip(product(vector), vector, strict=True)]

        return conjugate_gradients(damped, [-g for g in gradient], settings["cg_steps"])

    def search(
        self, trajectories: Task, product: Product | None = None
    ) -> tuple[Tensor, dict[str, float], list[Tensor]]:
        """Takes the step on episodes that were sampled at the present parameters.

        Args:
            trajectories: of [`collect`][fewstep.rl.MetaPolicy.collect].
            product: another one in place of [`FisherProduct`][fewstep.rl.FisherProduct].

        Returns:
            The meta-objective after the step, what was found (``kl``, ``step_found``), and the direction.
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
        """Moves the parameters by the longest part of ``step`` that is good, if any; loss and divergence there."""
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

"""Proximal meta-policy search as the outer optimiser (ProMP, Rothfuss et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.rl.fisher import mean_kl
from fewstep.rl.meta_policy import MetaPolicy
from fewstep.rl.reports import Reports
from fewstep.tasks import Task


class ProMP(torch.optim.Adam):
    """Several steps of Adam on the same episodes, held back by what keeps the policies near those that sampled them.

    Minimises the learner's meta-objective + η·KL(sampling policy ‖ policy) of the policy before adaptation (ProMP,
    Algorithm 1). Made for a learner whose inner loss is [`surrogate`][fewstep.rl.surrogate], so that its second
    derivatives account for how the episodes were sampled, and whose outer loss is ``clipped_surrogate(0.3)``, which
    holds back the adapted policies; and for [`fit`][fewstep.fit], which hands it each meta-batch.

    Args:
        learner: whose parameters that require a gradient are learned.
        lr: Adam's rate.
        epochs: steps on the episodes of a meta-batch.
        kl_weight: η.

    Examples:
        >>> import fewstep
        >>> from fewstep import rl
        >>> rollouts = rl.Rollouts(rl.environments.PointNavigation(num_envs=20), episodes=5, horizon=10)
        >>> losses = {"inner_loss": rl.surrogate, "loss": rl.clipped_surrogate(0.3)}
        >>> learner = rl.MetaPolicy(rl.GaussianPolicy(2, 2, [8]), rollouts, rule=fewstep.GradientDescent(0.1), **losses)
        >>> optimizer = ProMP(learner)
        >>> loss = optimizer.meta_step(rl.EnvironmentTasks(rollouts.environment).sample(4))
        >>> sorted(optimizer.report())
        ['kl', 'return_after', 'return_before']
    """

    def __init__(self, learner: MetaPolicy, lr: float = 1e-3, epochs: int = 5, kl_weight: float = 5e-4) -> None:
        if epochs < 1 or kl_weight < 0:
            raise ValueError(
                f"ProMP: epochs must be at least 1 and kl_weight at least 0; got {epochs} and {kl_weight}."
            )
        super().__init__([value for value in learner.parameters() if value.requires_grad], lr)
        self._learner, self._epochs, self._kl_weight = learner, epochs, kl_weight
        self._reports = Reports()

    def meta_step(self, tasks: Task) -> Tensor:
        """Samples episodes of a meta-batch and takes the steps.

        Args:
            tasks: of [`EnvironmentTasks`][fewstep.rl.EnvironmentTasks], with a leading task axis.

        Returns:
            The meta-objective on these episodes before the last of the steps.
        """
        learner = self._learner
        trajectories = learner.collect(tasks)
        explored = trajectories.support[:, 0]
        with torch.no_grad():
            sampled_by, old = explored.distribution(learner.model), learner.distributions(trajectories)
        for _ in range(self._epochs):
            loss = learner.loss_on(trajectories)
            moved = explored.mean(sampled_by.kl(explored.distribution(learner.model))).mean()
            self.zero_grad()
            (loss + self._kl_weight * moved).backward()
            self.step()
        with torch.no_grad():
            self._reports.add(trajectories, kl=float(mean_kl(trajectories, old, learner.distributions(trajectories))))
        return loss.detach()

    def report(self) -> dict[str, float]:
        """Means over the steps since the last report: returns before and after adaptation, and how far the adapted
        policies moved, as KL(old ‖ new)."""
        return self._reports.means()

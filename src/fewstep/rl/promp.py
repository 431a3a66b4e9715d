"""Proximal meta-policy search as the outer optimiser (ProMP, Rothfuss et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.arguments import check_number, check_whole
from fewstep.rl.checks import check_learner
from fewstep.rl.fisher import mean_kl
from fewstep.rl.meta_policy import MetaPolicy
from fewstep.rl.reports import Reports
from fewstep.tasks import Task


class ProMP(torch.optim.Adam):
    """Proximal meta-policy search: several steps of Adam on the same episodes (Rothfuss et al. 2019, Algorithm 1).

    The loss is the learner's meta-objective + η·KL(sampling policy ‖ policy), where the divergence is that of the
    policies before adaptation. The learner's inner loss should be [`surrogate`][fewstep.rl.surrogate], whose second
    derivatives account for the sampling of the episodes, and its outer loss ``clipped_surrogate(0.3)``, which limits
    the change of the adapted policies. Use it with [`fit`][fewstep.fit], which calls ``meta_step`` with each
    meta-batch.

    Args:
        learner: the learner, whose parameters that require a gradient are learned.
        lr: the learning rate of Adam.
        epochs: the number of steps on the episodes of a meta-batch.
        kl_weight: the weight η of the divergence.

    Raises:
        ValueError: ``epochs`` or ``kl_weight`` is out of range.

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
        check_learner("ProMP", learner)
        check_whole("ProMP", epochs=epochs)
        check_number("ProMP", 0, above=True, lr=lr)
        check_number("ProMP", 0, kl_weight=kl_weight)
        super().__init__([value for value in learner.parameters() if value.requires_grad], lr)
        self._learner, self._epochs, self._kl_weight = learner, epochs, kl_weight
        self._reports = Reports()

    def meta_step(self, tasks: Task) -> Tensor:
        """Sample episodes of a meta-batch and take ``epochs`` steps.

        Args:
            tasks: a meta-batch of [`EnvironmentTasks`][fewstep.rl.EnvironmentTasks], with a leading task axis.

        Returns:
            The meta-objective on these episodes before the last step.
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
        """Return means over the steps since the last call, which ``fit`` logs with the loss.

        They are the mean returns before and after adaptation, and KL(old ‖ new) of the adapted policies in nats.
        """
        return self._reports.means()

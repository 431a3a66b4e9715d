"""Meta-learning of a policy: the meta-learner whose support and query are episodes that it samples itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.adaptation import Adjoint, Rule, Unrolled
from fewstep.adaptation.rules import Params
from fewstep.learner import Learner, Scheduled, Tasks
from fewstep.learner.each_task import EachTask
from fewstep.learner.functional_loss import LOSS_PREFIX, FunctionalLoss, call
from fewstep.learner.selection import Names
from fewstep.models.context import current_step
from fewstep.objectives import Objective, query_loss
from fewstep.rl.acting import Act
from fewstep.rl.environment_tasks import EnvironmentTask
from fewstep.rl.losses import mean_return, policy_gradient, surrogate
from fewstep.rl.rollouts import Rollouts
from fewstep.rl.trajectories import Trajectories
from fewstep.tasks import Task


class MetaPolicy(Learner[nn.Module]):
    """A policy that is to adapt to a task from a few episodes (MAML, Algorithm 3).

    Each inner step is a gradient step on episodes sampled anew by the policy adapted so far; the loss of the outer loop
    is taken on episodes of the policy after the last one. Everything else is [`MetaLearner`][fewstep.MetaLearner]:
    rules, adjoints, objectives, and which parameters are adapted.

    A learner pickles (``torch.save(learner, file)``), together with its environment, which is made anew when loaded.

    Args:
        policy: a module that gives a [`Distribution`][fewstep.rl.Distribution] for observations, or an object of
            ``torch.distributions`` that [`as_distribution`][fewstep.rl.as_distribution] knows; it must run under
            ``torch.vmap``. It is copied.
        rollouts: how episodes are sampled, and in what environment where the tasks do not say.
        rule: one inner update.
        steps: inner updates, K. 0 learns one policy for all tasks (the paper's pretraining).
        loss: of the outer loop, ``loss(policy, trajectories) -> scalar``; see [`losses`][fewstep.rl.losses].
        inner_loss: of the inner loop.
        adapts: which trainable parameters the inner loop moves.
        adjoint: how dφ/dθ is obtained.
        objective: what the outer loop minimises.
        learns: which trainable parameters the outer loop learns.
        test_scales: factors on the inner gradient of the first, second, … step in ``score`` and
            [`adapt`][fewstep.adapt], the last for all further steps. The paper halves the rate after the first step.
        chunk: at most this many tasks at once when the loss and the policies are differentiated. On a CPU a few at a
            time are fastest: what is worked on stays in the cache.

    Raises:
        UserWarning: the policy has an attribute ``act`` of its own, so that what ``adapt`` returns keeps that one.

    Examples:
        >>> import fewstep
        >>> from fewstep.rl import GaussianPolicy, environments
        >>> rollouts = Rollouts(environments.PointNavigation(num_envs=20), episodes=5, horizon=10)
        >>> learner = MetaPolicy(GaussianPolicy(2, 2), rollouts, rule=fewstep.GradientDescent(0.1), steps=1)
        >>> tasks = fewstep.rl.EnvironmentTasks(rollouts.environment).sample(4)
        >>> learner.meta_loss(tasks).backward()
        >>> learner.score(tasks, steps=3).shape  # returns before and after 1, 2, 3 updates
        torch.Size([4, 4])
    """

    metric = staticmethod(mean_return)
    """What is measured if no other metric is named."""
    maximize = True

    def __init__(
        self,
        policy: nn.Module,
        rollouts: Rollouts,
        *,
        rule: Rule,
        steps: int = 1,
        loss: Callable[..., Tensor] = surrogate,
        inner_loss: Callable[..., Tensor] = policy_gradient,
        adapts: Names = "*",
        adjoint: Adjoint | Scheduled[Adjoint] = Unrolled(),  # noqa: B008 - immutable
        objective: Objective | Scheduled[Objective] = query_loss,
        learns: Names = "*",
        test_scales: Sequence[float] = (1.0, 0.5),
        chunk: int | None = None,
    ) -> None:
        if not test_scales:
            raise ValueError("test_scales must have at least one number; (1.0,) leaves every step as it is.")
        super().__init__(
            policy,
            loss,
            rule=rule,
            steps=steps,
            adapts=adapts,
            adjoint=adjoint,
            objective=objective,
            learns=learns,
            inner_loss=_OfCurrentStep(inner_loss),
            inner_batch=None,
            each=EachTask(vectorize=True, chunk=chunk),
            compile=False,
        )
        self.rollouts, self.test_scales, self.chunk = rollouts, tuple(test_scales), chunk
        if not isinstance(getattr(policy, "act", None), Act | None):
            warnings.warn(
                f"{type(policy).__name__} has an attribute act of its own, which what adapt returns will keep. For "
                "actions in the environment's units use fewstep.rl.Act(policy, environment).",
                stacklevel=2,
            )

    def meta_loss(self, tasks: Tasks) -> Tensor:
        """The meta-objective on episodes sampled now, averaged over tasks; a scalar ready for ``backward()``.

        Args:
            tasks: of [`EnvironmentTasks`][fewstep.rl.EnvironmentTasks], with a leading task axis.
        """
        return self.loss_on(self.collect(tasks))

    def collect(self, tasks: Tasks) -> Task:
        """Adapts to each task, and returns the episodes that were sampled meanwhile.

        Returns:
            As support the [`Trajectories`][fewstep.rl.Trajectories] of each inner step, ``[tasks, steps, episodes,
            time, ...]``, and as query those of the adapted policy, ``[tasks, episodes, time, ...]``. (Without inner
            steps the support has one step, which nothing looks at.)
        """
        *explored, adapted = self._explore(_environment_tasks(tasks), self.steps, self.rule)[1]
        return Task(_by_step(explored or [adapted]), adapted)

    def loss_on(self, trajectories: Task) -> Tensor:
        """The meta-objective on episodes that ``collect`` gave, as a function of the parameters as they are now."""
        return self._mean_objective(trajectories)

    def distributions(self, trajectories: Task) -> Any:
        """What the adapted policies put out for the query's observations: a distribution, ``[tasks, episodes, time]``.

        Differentiable in the learner's parameters, through adaptation to the support of ``collect``.
        """

        return self._each(lambda task: self._put_out(self._choices.path(task.support)[-1], task), trajectories)

    def loss_and_distributions(self, trajectories: Task) -> tuple[Tensor, Any]:
        """``loss_on`` and ``distributions`` of one adaptation."""

        def both(task: Task) -> tuple[Tensor, Any]:
            path = self._choices.path(task.support)
            return self._choices.value(path, task), self._put_out(path[-1], task)

        losses, distributions = self._each(both, trajectories)
        return losses.mean(), distributions

    def adapt(self, support: EnvironmentTask, steps: int | None = None) -> nn.Module:
        """A plain policy of the user's own class, adapted to one task by sampling episodes of it.

        It gives distributions as before, and has ``act(observation, deterministic=False)``, a [`Act`][fewstep.rl.Act],
        which gives actions in the environment's own units. It is saved and loaded without the learner, by
        ``torch.save(policy, file)`` and ``torch.load(file, weights_only=False)``.

        Args:
            support: a single environment task, without task axis.
            steps: inner updates; as in training if not given.

        Examples:
            >>> import fewstep
            >>> from fewstep.rl import EnvironmentTasks, GaussianPolicy, environments
            >>> rollouts = Rollouts(environments.PointNavigation(num_envs=20), episodes=5, horizon=10)
            >>> learner = MetaPolicy(GaussianPolicy(2, 2), rollouts, rule=fewstep.GradientDescent(0.1), steps=1)
            >>> policy = learner.adapt(EnvironmentTasks(rollouts.environment).sample(1)[0].support)
            >>> policy.act([0.0, 0.0], deterministic=True).shape  # within ±0.1, as PointNavigation takes it
            (2,)
        """
        if not isinstance(support, EnvironmentTask):
            what = type(support).__name__
            raise TypeError(
                f"adapt expects the support of one task, a fewstep.rl.EnvironmentTask; got {what}."
                + (" Pass task.support." if isinstance(support, Task) else "")
            )
        if support.seed.ndim:
            raise ValueError("adapt expects one task; got several with a task axis. Take one: tasks[0].support.")
        steps = self._steps(steps)
        task, rule = support[None], _Scaled(self.rule, self.test_scales)
        explored = self._explore(task, steps - 1, rule)[1]
        with torch.no_grad():
            adapted = self._adapted(explored, 1, rule)
        adapted = {name: value[0] for name, value in adapted.items()}
        policy = self._choices.adapted_module(adapted, self._trainable)
        if isinstance(getattr(policy, "act", None), Act | None):
            policy.__dict__["act"] = Act(policy, self.rollouts.environment_of(support))  # of no class or state_dict
        return policy

    def score(self, tasks: Tasks, metric: Callable[..., Tensor] | None = None, steps: int | None = None) -> Tensor:
        """A metric before adaptation and after every update, each on episodes sampled anew, ``[tasks, steps + 1]``.

        Args:
            tasks: a meta-batch.
            metric: ``metric(policy, trajectories) -> scalar``; the mean undiscounted return if not given.
            steps: inner updates; as in training if not given.
        """
        measure = FunctionalLoss(self.model, metric or self.metric)
        path, explored = self._tested(tasks, steps)
        with torch.no_grad():
            return torch.stack([torch.vmap(measure)(*pair) for pair in zip(path, explored, strict=True)], 1)

    def episodes(self, tasks: Task, steps: int | None = None) -> list[Trajectories]:
        """The episodes that ``score`` measures, before adaptation and after every update.

        Each are [`Trajectories`][fewstep.rl.Trajectories], ``[tasks, episodes, time, ...]``.

        Args:
            tasks: a meta-batch.
            steps: inner updates; as in training if not given.
        """
        return self._tested(tasks, steps)[1]

    def _tested(self, tasks: Tasks, steps: int | None) -> tuple[list[Params], list[Trajectories]]:
        steps = self.steps if steps is None else steps
        return self._explore(_environment_tasks(tasks), steps, _Scaled(self.rule, self.test_scales))

    @torch.no_grad()
    def _explore(self, tasks: EnvironmentTask, steps: int, rule: Rule) -> tuple[list[Params], list[Trajectories]]:
        """φ_0, …, φ_K, each adapted on the episodes of those before, and their episodes."""
        path: list[Params] = []
        explored: list[Trajectories] = []
        for step in range(steps + 1):
            path.append(self._adapted(explored, len(tasks.seed), rule))
            explored.append(self.rollouts(self.model, self._of_policy(path[-1]), tasks, step))
        return path, explored

    def _adapted(self, explored: Sequence[Trajectories], count: int, rule: Rule) -> Params:
        """φ_k of each task, ``[tasks, ...]``, from the episodes of the k steps so far."""
        params, adjoint = self._choices.params(), self._choices.adjoint
        if not explored:
            return {name: value.expand(count, *value.shape) for name, value in params.items()}

        def adapted(support: Trajectories) -> Params:
            return adjoint(self._choices.inner, params, support, rule, len(explored), self.adapts)[-1]

        return torch.vmap(adapted)(_by_step(explored))

    def _put_out(self, params: Params, task: Task) -> Any:
        return task.query.distribution(lambda seen: call(self.model, params, seen))

    def _of_policy(self, params: Params) -> Params:
        """The policy's parameters, without those of a learned loss."""
        return {name: value for name, value in params.items() if not name.startswith(LOSS_PREFIX)}


class _OfCurrentStep(nn.Module):
    """The loss of the inner step that is under way, on the episodes that were sampled for it."""

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, policy: nn.Module, trajectories: Trajectories) -> Tensor:
        return self.loss(policy, trajectories[current_step() or 0])


class _Scaled:
    """A rule with a factor on the gradient of each step."""

    def __init__(self, rule: Rule, scales: Sequence[float]) -> None:
        self.rule, self.scales = rule, scales

    def init(self, params: Params) -> Any:
        return self.rule.init(params)

    def update(self, params: Params, grads: Params, state: Any, step: int, loss: Tensor) -> tuple[Params, Any]:
        scale = self.scales[min(step, len(self.scales) - 1)]
        return self.rule.update(params, {name: scale * g for name, g in grads.items()}, state, step, loss)


def _by_step(explored: Sequence[Trajectories]) -> Trajectories:
    """The episodes of several steps as one, ``[tasks, steps, ...]``."""
    return tree_map(lambda *tensors: torch.stack(tensors, 1), *explored)


def _environment_tasks(tasks: Tasks) -> EnvironmentTask:
    if not isinstance(tasks, Task) or not isinstance(tasks.support, EnvironmentTask):
        came = type(tasks.support if isinstance(tasks, Task) else tasks).__name__
        raise TypeError(f"Expected tasks of fewstep.rl.EnvironmentTasks(environment).sample(n); got {came}.")
    return tasks.support

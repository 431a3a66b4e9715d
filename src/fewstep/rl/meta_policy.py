"""Meta-learning of a policy, which samples the episodes of its support and query sets."""

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
from fewstep.learner.checks import check_metric, metric_value
from fewstep.learner.each_task import EachTask
from fewstep.learner.functional_loss import LOSS_PREFIX, FunctionalLoss, call
from fewstep.learner.selection import Names
from fewstep.objectives import Objective, query_loss
from fewstep.parallel import alone, current
from fewstep.rl.acting import Act
from fewstep.rl.checks import check_policy, environment_tasks
from fewstep.rl.environment_tasks import EnvironmentTask
from fewstep.rl.inner_steps import OfCurrentStep, Scaled
from fewstep.rl.losses import mean_return, policy_gradient, surrogate
from fewstep.rl.rollouts import Rollouts
from fewstep.rl.trajectories import Trajectories
from fewstep.tasks import Task


class MetaPolicy(Learner[nn.Module]):
    """A learner of a policy that adapts to a task from a few episodes (MAML, Algorithm 3).

    Each inner step is a gradient step on new episodes of the policy adapted so far. The loss of the outer loop is
    evaluated on episodes of the policy after the last step. Rules, adjoints, objectives and the choice of adapted
    parameters are those of [`MetaLearner`][fewstep.MetaLearner].

    A learner can be pickled together with its environment (``torch.save(learner, file)``). Loading recreates the
    environment.

    Args:
        policy: a module that returns a [`Distribution`][fewstep.rl.Distribution] for observations, or an object of
            ``torch.distributions`` that [`as_distribution`][fewstep.rl.as_distribution] converts. It must run under
            ``torch.vmap``. The learner trains a copy.
        rollouts: how episodes are sampled. Its environment is that of all tasks that do not name one.
        rule: the rule of one inner update.
        steps: the number K of inner updates. 0 learns one policy for all tasks (the paper's pretraining).
        loss: the loss of the outer loop, ``loss(policy, trajectories) -> scalar``, such as
            [`surrogate`][fewstep.rl.surrogate].
        inner_loss: the loss of the inner loop.
        adapts: the trainable parameters that the inner loop adapts.
        adjoint: how dφ/dθ is computed.
        objective: the meta-objective.
        learns: the trainable parameters that the outer loop learns.
        test_scales: factors on the inner gradient of the first, second, ... step in ``score`` and ``adapt``; the last
            one also applies to later steps. The paper halves the rate after the first step.
        chunk: the maximum number of tasks that are differentiated at once; ``None`` for all. On a CPU small values are
            fastest, since the tensors stay in the cache.

    Raises:
        TypeError: ``policy`` is not a module, or another argument has the wrong type.
        ValueError: ``test_scales`` is empty, or arguments cannot be combined.
        UserWarning: the policy defines an attribute ``act``, which the result of ``adapt`` keeps.

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
    """The default metric."""
    maximize = True
    """Whether larger values of the metric are better."""

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
        check_policy(policy, rollouts, test_scales, inner_loss)
        super().__init__(
            policy,
            loss,
            rule=rule,
            steps=steps,
            adapts=adapts,
            adjoint=adjoint,
            objective=objective,
            learns=learns,
            inner_loss=OfCurrentStep(inner_loss),
            inner_batch=None,
            each=EachTask(vectorize=True, chunk=chunk),
            compile=False,
        )
        self.rollouts, self.test_scales, self.chunk = rollouts, tuple(test_scales), chunk
        if not isinstance(getattr(policy, "act", None), Act | None):
            warnings.warn(
                f"{type(policy).__name__} already defines act, so adapt does not set policy.act. For actions in the "
                "environment's units use fewstep.rl.Act(policy, environment), or rename the attribute.",
                stacklevel=2,
            )

    def meta_loss(self, tasks: Tasks) -> Tensor:
        """Sample episodes, and compute the meta-objective averaged over tasks, a scalar for ``backward()``.

        Args:
            tasks: a meta-batch of [`EnvironmentTasks`][fewstep.rl.EnvironmentTasks], with a leading task axis.
        """
        return self.loss_on(self.collect(tasks))

    def collect(self, tasks: Tasks) -> Task:
        """Adapt to each task, and return the sampled episodes.

        Args:
            tasks: as for ``meta_loss``.

        Returns:
            A task whose support is the [`Trajectories`][fewstep.rl.Trajectories] of every inner step,
            ``[tasks, steps, episodes, time, ...]``, and whose query is those of the adapted policy,
            ``[tasks, episodes, time, ...]``. Without inner steps the support has one step, which is not used.
        """
        sampled = environment_tasks(tasks)
        *explored, adapted = current().of_all(lambda: self._explore(sampled, self.steps, self.rule)[1], len(tasks))
        return Task(_by_step(explored or [adapted]), adapted)

    def loss_on(self, trajectories: Task) -> Tensor:
        """Compute the meta-objective on the result of ``collect`` at the current parameters, a scalar."""
        return self._mean_objective(trajectories)

    def distributions(self, trajectories: Task) -> Any:
        """Compute the adapted policies' distributions at the query observations, ``[tasks, episodes, time]``.

        They are differentiable in the learner's parameters, through adaptation to the support.
        """

        return self._each(lambda task: self._output(self._choices.path(task.support)[-1], task), trajectories)

    def loss_and_distributions(self, trajectories: Task) -> tuple[Tensor, Any]:
        """Compute ``loss_on`` and ``distributions`` with one adaptation."""

        def both(task: Task) -> tuple[Tensor, Any]:
            path = self._choices.path(task.support)
            return self._choices.value(path, task), self._output(path[-1], task)

        losses, distributions = self._each(both, trajectories)
        return losses.mean(), distributions

    def adapt(self, support: EnvironmentTask, steps: int | None = None) -> nn.Module:
        """Adapt to one task by sampling its episodes, and return a module of the policy's class.

        Calling it returns distributions, as before adaptation. Its attribute ``act(observation, deterministic=False)``,
        an [`Act`][fewstep.rl.Act], returns actions in the environment's units. Save and load the policy without the
        learner by ``torch.save(policy, file)`` and ``torch.load(file, weights_only=False)``. The policy is in the mode
        of the learner (``learner.training``); before acting with dropout, call ``.eval()`` on either.

        Args:
            support: a single environment task, without task axis.
            steps: the number of inner updates; ``None`` takes as many as in training.

        Raises:
            TypeError: ``support`` is not an [`EnvironmentTask`][fewstep.rl.EnvironmentTask].
            ValueError: there are several tasks, ``steps`` is negative, or adaptation diverges.

        Examples:
            >>> import fewstep
            >>> from fewstep.rl import EnvironmentTasks, GaussianPolicy, environments
            >>> rollouts = Rollouts(environments.PointNavigation(num_envs=20), episodes=5, horizon=10)
            >>> learner = MetaPolicy(GaussianPolicy(2, 2), rollouts, rule=fewstep.GradientDescent(0.1), steps=1)
            >>> policy = learner.adapt(EnvironmentTasks(rollouts.environment).sample(1)[0].support)
            >>> policy.act([0.0, 0.0], deterministic=True).shape  # in [−0.1, 0.1], the action space of PointNavigation
            (2,)
        """
        if not isinstance(support, EnvironmentTask):
            what = type(support).__name__
            raise TypeError(
                f"adapt expects the support of one task, a fewstep.rl.EnvironmentTask; got {what}."
                + (" Pass task.support." if isinstance(support, Task) else "")
            )
        if support.seed.ndim:
            raise ValueError("adapt expects one task; got several with a task axis. Pass one: tasks[0].support.")
        steps = self._steps(steps)
        task, rule = support[None], Scaled(self.rule, self.test_scales)
        with alone():
            explored = self._explore(task, steps - 1, rule)[1]
        with torch.no_grad():
            adapted = self._adapted(explored, 1, rule)
        adapted = {name: value[0] for name, value in adapted.items()}
        policy = self._choices.adapted_module(adapted, self._trainable)
        if isinstance(getattr(policy, "act", None), Act | None):
            # In __dict__ it is part of neither the class nor the state_dict.
            policy.__dict__["act"] = Act(policy, self.rollouts.environment_of(support))
        return policy

    def score(self, tasks: Tasks, metric: Callable[..., Any] | None = None, steps: int | None = None) -> Tensor:
        """Compute a metric before adaptation and after every update, each on new episodes.

        Args:
            tasks: a meta-batch, as for ``meta_loss``.
            metric: a function of (policy, trajectories) that returns a scalar tensor or a number. It is called for one
                task at a time, without gradients; ``None`` takes the mean undiscounted return.
            steps: the number of inner updates; ``None`` takes as many as in training.

        Returns:
            The metric, ``[tasks, steps + 1]``.

        Raises:
            TypeError: the metric is not a function of (policy, trajectories), or does not return a scalar.
            ValueError: ``steps`` is negative, or sampling fails as in [`Rollouts`][fewstep.rl.Rollouts].
        """
        metric = metric or self.metric
        check_metric(metric)
        measure = FunctionalLoss(self.model, metric)

        def of_task(task: int, params: Params, trajectories: Trajectories) -> Tensor:
            own = {name: value[task] for name, value in params.items()}
            return metric_value(measure(own, trajectories[task]), trajectories.mask.device)

        def of_own_tasks() -> Tensor:
            pairs = list(zip(*self._tested(tasks, steps), strict=True))
            own = range(len(pairs[0][1].mask))
            return torch.stack([torch.stack([of_task(task, *pair) for pair in pairs]) for task in own])

        with torch.no_grad():
            found: Tensor = current().of_all(of_own_tasks, len(environment_tasks(tasks).seed))
        return found

    def episodes(self, tasks: Task, steps: int | None = None) -> list[Trajectories]:
        """Sample the episodes that ``score`` evaluates, before adaptation and after every update.

        Args:
            tasks: a meta-batch, as for ``meta_loss``.
            steps: the number of inner updates; ``None`` takes as many as in training.

        Returns:
            [`Trajectories`][fewstep.rl.Trajectories] ``[tasks, episodes, time, ...]`` per step.
        """
        count = len(environment_tasks(tasks).seed)
        found: list[Trajectories] = current().of_all(lambda: self._tested(tasks, steps)[1], count)
        return found

    def _tested(self, tasks: Tasks, steps: int | None) -> tuple[list[Params], list[Trajectories]]:
        return self._explore(environment_tasks(tasks), self._steps(steps), Scaled(self.rule, self.test_scales))

    @torch.no_grad()
    def _explore(self, tasks: EnvironmentTask, steps: int, rule: Rule) -> tuple[list[Params], list[Trajectories]]:
        """φ_0, …, φ_K, each adapted on the episodes of those before, and their episodes; of the process's own tasks."""
        own = current().share(len(tasks.seed)) or range(1)
        path: list[Params] = []
        explored: list[Trajectories] = []
        for step in range(steps + 1):
            path.append(self._adapted(explored, len(own), rule))
            explored.append(self.rollouts(self.model, self._of_policy(path[-1]), tasks, step, own))
        return path, explored

    def _adapted(self, explored: Sequence[Trajectories], count: int, rule: Rule) -> Params:
        """φ_k of each task, ``[tasks, ...]``, from the episodes of the k steps so far."""
        params, adjoint = self._choices.params(), self._choices.adjoint
        if not explored:
            return {name: value.expand(count, *value.shape) for name, value in params.items()}

        def adapted(support: Trajectories) -> Params:
            return adjoint(self._choices.inner, params, support, rule, len(explored), self.adapts)[-1]

        return torch.vmap(adapted)(_by_step(explored))

    def _output(self, params: Params, task: Task) -> Any:
        return task.query.distribution(lambda seen: call(self.model, params, seen))

    def _of_policy(self, params: Params) -> Params:
        """The policy's parameters, without those of a learned loss."""
        return {name: value for name, value in params.items() if not name.startswith(LOSS_PREFIX)}


def _by_step(explored: Sequence[Trajectories]) -> Trajectories:
    """Stack the episodes of several steps, ``[tasks, steps, ...]``."""
    return tree_map(lambda *tensors: torch.stack(tensors, 1), *explored)

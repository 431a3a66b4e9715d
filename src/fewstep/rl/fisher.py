"""Products of vectors with the Fisher information of adapted policies in the shared parameters."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from fewstep.learner.gradients import Gradient, scaled, summed
from fewstep.parallel import current
from fewstep.rl.meta_policy import MetaPolicy
from fewstep.tasks import Task


def mean_kl(trajectories: Task, old: Any, new: Any) -> Tensor:
    """Compute KL(old ‖ new) of the adapted policies at the query observations, averaged over steps, then over tasks.

    Args:
        trajectories: the result of [`collect`][fewstep.rl.MetaPolicy.collect].
        old: the result of [`distributions`][fewstep.rl.MetaPolicy.distributions].
        new: the same at other parameters.

    Returns:
        The divergence in nats, a scalar.

    Examples:
        >>> import fewstep
        >>> from fewstep import rl
        >>> rollouts = rl.Rollouts(rl.environments.PointNavigation(num_envs=10), episodes=5, horizon=5)
        >>> learner = rl.MetaPolicy(rl.GaussianPolicy(2, 2, [8]), rollouts, rule=fewstep.GradientDescent(0.1))
        >>> trajectories = learner.collect(rl.EnvironmentTasks(rollouts.environment).sample(2))
        >>> policies = learner.distributions(trajectories)
        >>> mean_kl(trajectories, policies, policies).item()
        0.0
    """
    return trajectories.query.mean(old.kl(new)).mean()


class FisherProduct:
    """The product v ↦ JᵀFJ·v, where J = dz/dθ, z is the output of the adapted policies, and F the Fisher matrix of z.

    This is the product of TRPO (Schulman et al. 2015, appendix C), through adaptation.

    At the parameters with which the episodes were sampled, JᵀFJ is the Hessian of [`mean_kl`][fewstep.rl.mean_kl]: the
    gradient of the divergence in z is 0 there, and so is the term with second derivatives of z. Neither the divergence
    nor the adaptation has to be differentiated twice, and F has a closed form. The graphs of J and Jᵀ are built once by
    the constructor and used in every product: Jv is the derivative of the linear function u ↦ Jᵀu. The same pass
    computes the gradient of the meta-objective.

    Args:
        learner: the learner; θ are its parameters that require a gradient. ``learner.chunk`` limits the number of tasks
            that are differentiated at once.
        trajectories: the result of [`collect`][fewstep.rl.MetaPolicy.collect] at the current parameters.
        tasks: the number of tasks over which the Fisher matrix is averaged; all if not given.

    Attributes:
        loss: the meta-objective on all trajectories, a scalar.
        gradient: the gradient of the loss, one tensor per parameter.
        distributions: z, as in [`distributions`][fewstep.rl.MetaPolicy.distributions].

    Examples:
        >>> import fewstep
        >>> from fewstep import rl
        >>> rollouts = rl.Rollouts(rl.environments.PointNavigation(num_envs=10), episodes=5, horizon=5)
        >>> learner = rl.MetaPolicy(rl.GaussianPolicy(2, 2, [8]), rollouts, rule=fewstep.GradientDescent(0.1))
        >>> product = FisherProduct(learner, learner.collect(rl.EnvironmentTasks(rollouts.environment).sample(2)))
        >>> [value.shape for value in product(product.gradient)] == [value.shape for value in product.gradient]
        True
    """

    def __init__(self, learner: MetaPolicy, trajectories: Task, tasks: int | None = None) -> None:
        self._processes, count = current(), len(trajectories)
        curved = count if tasks is None else min(tasks, count)
        own = self._processes.share(count)
        inside = own or range(1)  # a process without tasks computes one that does not count
        ends = {*inside[:: learner.chunk or count], *([curved] if curved in inside else []), inside.stop}
        parameters = [value for value in learner.parameters() if value.requires_grad]
        parts: list[_Part] = []

        def of_own_tasks() -> Gradient:
            parts.extend(
                _Part(learner, trajectories[start:end], count, curved if own and end <= curved else 0)
                for start, end in itertools.pairwise(sorted(ends))
            )
            loss, gradient = torch.stack([part.loss for part in parts]).sum(), _sum(part.gradient for part in parts)
            return (loss, [*gradient]) if own else scaled(loss, gradient, 0.0)

        self.loss, gradient = summed(self._processes, of_own_tasks, parameters)
        self.gradient = _present(gradient, parameters)
        joined = tree_map(lambda *each: torch.cat(each), *(part.distributions for part in parts))
        self.distributions = self._processes.gather(joined, count)
        self._curved = [part for part in parts if part.curved]

    def __call__(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """Multiply by a vector, given as one tensor per parameter; the result has the same form."""
        own: list[Tensor | None] = [*_sum(part(vector) for part in self._curved)] or [None] * len(vector)
        return _present(self._processes.sum(own, vector), vector)


class _Part:
    """A chunk of the ``count`` tasks. ``curved`` is the number of tasks of the Fisher matrix, or 0."""

    def __init__(self, learner: MetaPolicy, trajectories: Task, count: int, curved: int) -> None:
        self.curved = curved > 0
        self._parameters = [value for value in learner.parameters() if value.requires_grad]
        loss, outputs = learner.loss_and_distributions(trajectories)
        loss = loss * (len(trajectories) / count)
        leaves, self._structure = tree_flatten(outputs)
        self.distributions = tree_unflatten([leaf.detach() for leaf in leaves], self._structure)
        if self.curved:
            mask = trajectories.query.mask
            self._weight = mask / (mask.sum((-2, -1), keepdim=True) * curved)
            self._moves = [leaf.requires_grad for leaf in leaves]  # a policy may have a fixed standard deviation
            self._outputs = [leaf for leaf in leaves if leaf.requires_grad]
            self._cotangents = [torch.zeros_like(leaf, requires_grad=True) for leaf in self._outputs]
            pulled = self._pulled = self._pull(
                [loss, *self._outputs], [torch.ones_like(loss), *self._cotangents], again=True
            )
        else:
            pulled = self._pull([loss], [torch.ones_like(loss)])
        self.loss, self.gradient = loss.detach(), [value.detach() for value in pulled]  # ∇loss + Jᵀ0

    def __call__(self, vector: Sequence[Tensor]) -> list[Tensor]:
        pairs = zip(self._pulled, vector, strict=True)
        # Some parameters do not change the output.
        pulled, vectors = zip(*((p, v) for p, v in pairs if p.requires_grad), strict=True)
        tangent = torch.autograd.grad(pulled, self._cotangents, vectors, retain_graph=True, materialize_grads=True)
        moved, still = iter(tangent), tree_flatten(self.distributions)[0]
        whole = [
            next(moved) if moves else torch.zeros_like(leaf) for moves, leaf in zip(self._moves, still, strict=True)
        ]
        products = tree_flatten(self.distributions.fisher(tree_unflatten(whole, self._structure)))[0]
        weighted = [product for product, moves in zip(products, self._moves, strict=True) if moves]
        return self._pull(
            self._outputs, [self._weight.view(*self._weight.shape, *[1] * (w.ndim - 3)) * w for w in weighted]
        )

    def _pull(self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor], again: bool = False) -> list[Tensor]:
        return list(
            torch.autograd.grad(
                outputs,
                self._parameters,
                cotangents,
                retain_graph=self.curved,
                create_graph=again,
                materialize_grads=True,
            )
        )


def _sum(parts: Iterable[list[Tensor]]) -> list[Tensor]:
    return [sum(tensors[1:], start=tensors[0]) for tensors in zip(*parts, strict=True)]


def _present(values: Iterable[Tensor | None], likes: Sequence[Tensor]) -> list[Tensor]:
    """The values, with zeros for those that no process has."""
    return [torch.zeros_like(like) if value is None else value for value, like in zip(values, likes, strict=True)]

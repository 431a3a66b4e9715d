"""The Fisher information of adapted policies in the shared parameters, as a product with vectors."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from fewstep.rl.meta_policy import MetaPolicy
from fewstep.tasks import Task


def mean_kl(trajectories: Task, old: Any, new: Any) -> Tensor:
    """KL(old ‖ new) of the adapted policies at the query's observations: mean over a task's steps, then over tasks.

    Args:
        trajectories: of [`collect`][fewstep.rl.MetaPolicy.collect].
        old: distributions of [`distributions`][fewstep.rl.MetaPolicy.distributions].
        new: the same at other parameters.
    """
    return trajectories.query.mean(old.kl(new)).mean()


class FisherProduct:
    """v ↦ JᵀFJ·v, where J = dz/dθ through adaptation, z is what the adapted policies put out, and F its Fisher matrix.

    At the parameters where the episodes were sampled that is exactly the Hessian of [`mean_kl`][fewstep.rl.mean_kl]:
    the gradient of the divergence in z is 0 there, and with it the term of second derivatives of z. So neither the
    divergence nor the adaptation is differentiated once more. F is a closed form of the distribution. The graphs of J
    and Jᵀ are built once, here, and every product runs through them: Jv is the derivative of the linear function u ↦
    Jᵀu. The pass that builds them gives the gradient of the meta-objective as well.

    Args:
        learner: the parameters that require a gradient are θ. At most its ``chunk`` of tasks are worked on at once.
        trajectories: of [`collect`][fewstep.rl.MetaPolicy.collect], at the present parameters.
        tasks: the Fisher matrix is the mean of the first so many tasks only; all if not given.

    Attributes:
        loss: the meta-objective on all the trajectories, a scalar.
        gradient: of the loss, one tensor for each parameter.
        distributions: z, as of [`distributions`][fewstep.rl.MetaPolicy.distributions].
    """

    def __init__(self, learner: MetaPolicy, trajectories: Task, tasks: int | None = None) -> None:
        count = len(trajectories)
        curved = count if tasks is None else min(tasks, count)
        bounds = sorted({*range(0, count, learner.chunk or count), curved, count})
        parts = [
            _Part(learner, trajectories[start:end], count, curved if end <= curved else 0)
            for start, end in itertools.pairwise(bounds)
        ]
        self.loss = torch.stack([part.loss for part in parts]).sum()
        self.gradient = _sum(part.gradient for part in parts)
        self.distributions = tree_map(lambda *tensors: torch.cat(tensors), *(part.distributions for part in parts))
        self._curved = [part for part in parts if part.curved]

    def __call__(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """The product with a vector, one tensor for each parameter; and so is the result."""
        return _sum(part(vector) for part in self._curved)


class _Part:
    """Some of the ``count`` tasks of the loss, and of the ``curved`` ones of the Fisher matrix, or of none of those."""

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
        pulled, vectors = zip(*((p, v) for p, v in pairs if p.requires_grad), strict=True)  # some move no output
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

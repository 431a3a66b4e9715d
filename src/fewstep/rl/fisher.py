"""The Fisher information of adapted policies in the shared parameters, as a product with vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from fewstep.rl.meta_policy import MetaPolicy
from fewstep.tasks import Task


def mean_kl(trajectories: Task, old: Any, new: Any) -> Tensor:
    """KL(old ‖ new) of the adapted policies at the query's observations: mean over a task's steps, then over tasks.

    Args:
        trajectories: of :meth:`fewstep.rl.MetaPolicy.collect`.
        old: distributions of :meth:`fewstep.rl.MetaPolicy.distributions`.
        new: the same at other parameters.
    """
    return trajectories.query.mean(old.kl(new)).mean()


class FisherProduct:
    """v ↦ JᵀFJ·v, where J = dz/dθ through adaptation, z is what the adapted policies put out, and F its Fisher matrix.

    At the parameters where the episodes were sampled that is exactly the Hessian of :func:`mean_kl`: the gradient of
    the divergence in z is 0 there, and with it the term of second derivatives of z. So neither the divergence nor the
    adaptation is differentiated once more. F is a closed form of the distribution. The graphs of J and Jᵀ are built
    once, here, and every product runs through them: Jv is the derivative of the linear function u ↦ Jᵀu.

    Args:
        learner: the parameters that require a gradient are θ. At most its ``chunk`` of tasks are worked on at once.
        trajectories: of :meth:`fewstep.rl.MetaPolicy.collect`, at the present parameters.
    """

    def __init__(self, learner: MetaPolicy, trajectories: Task) -> None:
        count = len(trajectories)
        size = learner.chunk or count
        self._parts = [_Part(learner, trajectories[i : i + size], count) for i in range(0, count, size)]

    def __call__(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """The product with a vector, one tensor for each parameter; and so is the result."""
        return [sum(parts[1:], start=parts[0]) for parts in zip(*(part(vector) for part in self._parts), strict=True)]


class _Part:
    """The share of some of ``count`` tasks."""

    def __init__(self, learner: MetaPolicy, trajectories: Task, count: int) -> None:
        self._parameters = [value for value in learner.parameters() if value.requires_grad]
        outputs = learner.distributions(trajectories)
        leaves, self._structure = tree_flatten(outputs)
        self._outputs: list[Tensor] = leaves
        self._old = tree_unflatten([leaf.detach() for leaf in leaves], self._structure)
        mask = trajectories.query.mask
        self._weight = mask / (mask.sum((-2, -1), keepdim=True) * count)
        self._cotangents = [torch.zeros_like(leaf, requires_grad=True) for leaf in leaves]
        self._pulled = self._pull(self._cotangents, again=True)

    def __call__(self, vector: Sequence[Tensor]) -> list[Tensor]:
        pairs = zip(self._pulled, vector, strict=True)
        pulled, vectors = zip(*((p, v) for p, v in pairs if p.requires_grad), strict=True)  # some move no output
        tangent = torch.autograd.grad(pulled, self._cotangents, vectors, retain_graph=True, materialize_grads=True)
        weighted = tree_flatten(self._old.fisher(tree_unflatten(tangent, self._structure)))[0]
        return self._pull([self._weight.view(*self._weight.shape, *[1] * (w.ndim - 3)) * w for w in weighted])

    def _pull(self, cotangents: Sequence[Tensor], again: bool = False) -> list[Tensor]:
        return list(
            torch.autograd.grad(
                self._outputs,
                self._parameters,
                cotangents,
                retain_graph=True,
                create_graph=again,
                materialize_grads=True,
            )
        )

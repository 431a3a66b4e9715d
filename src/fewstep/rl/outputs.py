"""Conversion of a policy's output to a distribution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from fewstep.rl.distributions import Categorical, Distribution, Gaussian, MultiCategorical


def distribution_of(policy: Callable[[Tensor], Any], observations: Tensor, leading: int = 1) -> Distribution:
    """Compute the distribution of a policy for observations, with the same leading axes.

    Vectors ``[..., numbers]`` are passed to the policy unchanged. Images are passed with one batch axis,
    ``[batch, height, width, channels]``, as convolutional layers need them.

    Args:
        policy: a function that returns a [`Distribution`][fewstep.rl.Distribution], or an object of
            ``torch.distributions`` that [`as_distribution`][fewstep.rl.as_distribution] converts.
        observations: observations with ``leading`` axes in front.
        leading: the number of axes in front.

    Examples:
        >>> from fewstep.rl import GaussianPolicy
        >>> distribution_of(GaussianPolicy(3, 2), torch.zeros(4, 5, 3), leading=2).mean.shape
        torch.Size([4, 5, 2])
    """
    images = observations.ndim > leading + 1
    with _without_validation():
        found = as_distribution(policy(observations.flatten(0, leading - 1) if images else observations))
    if not images:
        return found
    axes = observations.shape[:leading]
    shaped: Distribution = tree_map(lambda tensor: tensor.unflatten(0, axes), found)
    return shaped


def as_distribution(output: Any) -> Distribution:
    """Convert a policy's output to a distribution with the methods that policy optimisation needs.

    ``torch.distributions.Normal`` and ``Independent(Normal, 1)``, whose last axis holds the entries of an action,
    become [`Gaussian`][fewstep.rl.Gaussian]; ``torch.distributions.Categorical`` becomes
    [`Categorical`][fewstep.rl.Categorical].

    Args:
        output: the output of a policy.

    Raises:
        TypeError: the output is neither one of these nor a [`Distribution`][fewstep.rl.Distribution].

    Examples:
        >>> as_distribution(torch.distributions.Normal(torch.zeros(4, 2), 1.0)).log_prob(torch.zeros(4, 2)).shape
        torch.Size([4])
    """
    base = output
    while isinstance(base, torch.distributions.Independent):
        base = base.base_dist
    if type(base) is torch.distributions.Normal:
        return Gaussian(base.loc, base.scale.log())
    if type(output) is torch.distributions.Categorical:
        return Categorical(output.logits)
    if isinstance(output, torch.distributions.Distribution):
        raise TypeError(
            f"A policy gave torch.distributions.{type(output).__name__}, of which only Normal, Independent(Normal, 1) "
            "and Categorical can be taken: sampling here is a function of standard normal numbers, and TRPO needs the "
            "divergence and the Fisher matrix. Give one of these, fewstep.rl.MultiCategorical, or a class of your own "
            "with the methods of fewstep.rl.Distribution."
        )
    if not all(callable(getattr(output, name, None)) for name in ("log_prob", "sample")):
        raise TypeError(
            "A policy must give a distribution such as fewstep.rl.Gaussian or fewstep.rl.Categorical for observations; "
            f"got {type(output).__name__}."
        )
    if not all(isinstance(leaf, Tensor) for leaf in tree_leaves(output)):
        raise TypeError(
            f"A policy gave {type(output).__name__}, which is no pytree of tensors; make it a dataclass that derives "
            "from fewstep.rl.Record."
        )
    found: Distribution = output
    return found


def choices_of(distribution: Any) -> tuple[int, ...] | None:
    """The number of actions of each discrete choice of a distribution; ``None`` if unknown."""
    if isinstance(distribution, Categorical):
        return (distribution.logits.shape[-1],)
    return distribution.choices if isinstance(distribution, MultiCategorical) else None


@contextmanager
def _without_validation() -> Iterator[None]:
    """A context without argument validation in ``torch.distributions``, which does not run under ``torch.vmap``."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)

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
        observations: vectors ``[..., numbers]`` or images ``[..., height, width, channels]``.
        leading: the number of leading axes ``...``.

    Returns:
        The distribution, whose parameters have the same leading axes.

    Raises:
        TypeError: the output of the policy is not a supported distribution.

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
            f"The policy returned torch.distributions.{type(output).__name__}; only Normal, Independent(Normal, 1) and "
            "Categorical are supported, because sampling is a function of standard normal numbers and TRPO needs the "
            "divergence and the Fisher matrix. Return one of these, fewstep.rl.MultiCategorical, or an object with the "
            "methods of fewstep.rl.Distribution."
        )
    if not all(callable(getattr(output, name, None)) for name in ("log_prob", "sample")):
        raise TypeError(
            "A policy must return a distribution, such as fewstep.rl.Gaussian or fewstep.rl.Categorical; got "
            f"{type(output).__name__}. Wrap the output of the network: fewstep.rl.Gaussian(mean, log_std)."
        )
    if not all(isinstance(leaf, Tensor) for leaf in tree_leaves(output)):
        raise TypeError(
            f"A policy must return a pytree of tensors; got {type(output).__name__}, which is not one. Make it a "
            "dataclass that derives from fewstep.rl.Record."
        )
    found: Distribution = output
    return found


def choices_of(distribution: Any) -> tuple[int, ...] | None:
    """Return the number of values of each discrete choice of a distribution; ``None`` if unknown."""
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

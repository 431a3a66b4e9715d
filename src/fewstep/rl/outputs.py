"""What a policy puts out for observations, as one of the library's distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from fewstep.rl.distributions import Categorical, Distribution, Gaussian, MultiCategorical


def distribution_of(policy: Callable[[Tensor], Any], observations: Tensor, leading: int = 1) -> Distribution:
    """The distribution that a policy gives for observations, with as many leading axes as they have.

    Observations of one axis, ``[..., numbers]``, reach the policy as they are. Those of several (images) reach it with
    one batch axis, ``[batch, height, width, channels]``, as convolutional layers need them.

    Args:
        policy: gives a [`Distribution`][fewstep.rl.Distribution], or a ``torch.distributions`` object that
            [`as_distribution`][fewstep.rl.as_distribution] knows.
        observations: with ``leading`` axes before those of an observation.
        leading: the number of such axes.

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
    """A policy's output as one of the library's distributions, which have all that policy optimisation needs.

    Of ``torch.distributions``: ``Normal`` and ``Independent(Normal, 1)``, whose last axis are the numbers of an action,
    become [`Gaussian`][fewstep.rl.Gaussian]; ``Categorical`` becomes [`Categorical`][fewstep.rl.Categorical].

    Raises:
        TypeError: it is neither of these nor a [`Distribution`][fewstep.rl.Distribution].

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
    """How many actions each discrete choice of a distribution has; None where it is not known."""
    if isinstance(distribution, Categorical):
        return (distribution.logits.shape[-1],)
    return distribution.choices if isinstance(distribution, MultiCategorical) else None


@contextmanager
def _without_validation() -> Iterator[None]:
    """``torch.distributions`` checks its arguments by reading numbers, which cannot be done under ``torch.vmap``."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)

"""Normalisation as one explicit choice: by whose statistics, with which scale and shift.

What a number is worth depends on the policy under which it was measured:

======== ===================================================== =========================================================
policy   normalised by                                         what it means
======== ===================================================== =========================================================
batch    the batch at hand; at test, the whole query set       transductive: queries are classified together, as in the
                                                               MAML paper; one query at a time loses most accuracy
support  the support set of the task, for queries too          not transductive; queries may come one at a time
running  training: the batch; evaluation: running averages     not transductive; the averages are of all training tasks
per_step the batch, scale and shift of each inner step         as batch (MAML++)
group    groups of channels of one image                       no statistics shared by images
layer    all channels of one image                             no statistics shared by images
none     nothing                                               no statistics
======== ===================================================== =========================================================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from fewstep.models.context import current_step, given_statistics, record_statistics
from fewstep.models.second_order import normalize, normalize_and_pool

Policy = Literal["batch", "support", "running", "per_step", "group", "layer", "none"]


class BatchNorm(nn.Module):
    """Normalises each channel by the mean and variance of the batch that it is called with; nothing is tracked.

    In few-shot learning the query set is one batch, so its examples are classified together: the transductive setting
    of the MAML paper. Twice differentiable in a few fused passes.

    Args:
        channels: number of channels.
        scale: learn a factor per channel, ``weight``; the MAML paper has none.
        shift: learn a summand per channel, ``bias``.
        eps: added to the variance; 1e-3 in the paper's code.

    >>> BatchNorm(3)(torch.rand(8, 3, 5, 5)).std((0, 2, 3), correction=0).round(decimals=2).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, channels: int, scale: bool = True, shift: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels)) if scale else None
        self.bias = nn.Parameter(torch.zeros(channels)) if shift else None

    def forward(self, x: Tensor) -> Tensor:
        """``[examples, channels, ...]`` to the same shape."""
        return self.scale_and_shift(self.normalize(x))

    def normalize(self, x: Tensor) -> Tensor:
        """The first half: mean 0 and variance 1."""
        return normalize(x, self.eps)

    def normalize_and_pool(self, x: Tensor) -> Tensor:
        """The first half, and 2×2 max-pooling after it."""
        return normalize_and_pool(x, self.eps)

    def scale_and_shift(self, x: Tensor) -> Tensor:
        """The second half."""
        scale, shift = self.scale(), self.shift()
        x = x if scale is None else x * _per_channel(scale, x)
        return x if shift is None else x + _per_channel(shift, x)

    def scale(self) -> Tensor | None:
        """The factor of each channel, ``[channels]``."""
        return self.weight

    def shift(self) -> Tensor | None:
        """The summand of each channel, ``[channels]``."""
        return self.bias

    def settle(self, step: int, statistics: tuple[Tensor, Tensor] | None) -> None:
        """Makes the norm that of a model adapted by ``step`` inner steps to a support set with these statistics."""

    def extra_repr(self) -> str:
        return f"{self.channels}, scale={self.weight is not None}, shift={self.bias is not None}, eps={self.eps}"


class SupportNorm(BatchNorm):
    """Normalises query examples by the mean and variance of the task's support set (Bronskill et al. 2020, section 3).

    The learner sees to it: the query loss goes through the support set first. A model that
    :meth:`fewstep.MetaLearner.adapt` returns keeps the support set's statistics. Called on its own it is
    :class:`BatchNorm`.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, scale: bool = True, shift: bool = True, eps: float = 1e-5) -> None:
        super().__init__(channels, scale, shift, eps)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.settled = False

    def normalize(self, x: Tensor) -> Tensor:
        given = (self.mean, self.variance) if self.settled else given_statistics(self)
        if given is None:
            record_statistics(self, x)
            return normalize(x, self.eps)
        return _normalize_by(x, *given, self.eps)

    def settle(self, step: int, statistics: tuple[Tensor, Tensor] | None) -> None:
        if statistics is not None:
            self.mean.copy_(statistics[0])
            self.variance.copy_(statistics[1])
            self.settled = True

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.settled)

    def set_extra_state(self, state: Tensor) -> None:
        self.settled = bool(state)


class RunningNorm(BatchNorm):
    """Normalises by the batch while training, and by running averages over the training tasks in evaluation.

    After every meta-step the learner moves the averages towards the statistics of one task's query set, adapted; no
    gradient goes through them, and nothing of a test task reaches them.

    Args:
        channels: number of channels.
        scale: learn a factor per channel.
        shift: learn a summand per channel.
        eps: added to the variance.
        momentum: weight of the newest task in the averages.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self, channels: int, scale: bool = True, shift: bool = True, eps: float = 1e-5, momentum: float = 0.05
    ) -> None:
        super().__init__(channels, scale, shift, eps)
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def normalize(self, x: Tensor) -> Tensor:
        if not self.training:
            return _normalize_by(x, self.mean, self.variance, self.eps)
        record_statistics(self, x)
        return normalize(x, self.eps)

    def update(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the averages towards these statistics, ``[channels]`` each."""
        self.mean.lerp_(mean, self.momentum)
        self.variance.lerp_(variance, self.momentum)


class PerStepNorm(BatchNorm):
    """Batch statistics, with a scale and a shift for each inner step (MAML++, section 4).

    They are learned by the outer loop only: leave them out of ``adapts``. The query loss after step k takes those of
    step k; later steps than there were in training take the last.

    Args:
        channels: number of channels.
        steps: inner steps in training.
        eps: added to the variance.
    """

    def __init__(self, channels: int, steps: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps)
        self.weight = nn.Parameter(torch.ones(steps, channels))
        self.bias = nn.Parameter(torch.zeros(steps, channels))
        self.steps, self.own_step = steps, 0

    def scale(self) -> Tensor:
        assert self.weight is not None
        return self.weight[self._step()]

    def shift(self) -> Tensor:
        assert self.bias is not None
        return self.bias[self._step()]

    def settle(self, step: int, statistics: tuple[Tensor, Tensor] | None) -> None:
        self.own_step = max(0, step - 1)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.own_step)

    def set_extra_state(self, state: Tensor) -> None:
        self.own_step = int(state)

    def _step(self) -> int:
        step = current_step()
        return min(self.own_step if step is None else step, self.steps - 1)


def norm_layer(
    policy: Policy, scale: bool = True, shift: bool = True, eps: float = 1e-5, steps: int = 1
) -> Callable[[int], nn.Module]:
    """From a policy to a function that makes the normalisation of some channels; see this module for what each means.

    Args:
        policy: ``"batch"``, ``"support"``, ``"running"``, ``"per_step"``, ``"group"``, ``"layer"`` or ``"none"``.
        scale: learn a factor per channel.
        shift: learn a summand per channel.
        eps: added to the variance.
        steps: inner steps in training, for ``"per_step"``.

    Raises:
        ValueError: there is no such policy.

    >>> norm_layer("support", scale=False)(64)
    SupportNorm(64, scale=False, shift=True, eps=1e-05)
    """
    if policy == "per_step":
        return partial(PerStepNorm, steps=steps, eps=eps)
    if policy in ("group", "layer"):
        return lambda channels: nn.GroupNorm(
            _groups(channels) if policy == "group" else 1, channels, eps, scale or shift
        )
    if policy == "none":
        return lambda channels: nn.Identity()
    kinds: dict[str, type[BatchNorm]] = {"batch": BatchNorm, "support": SupportNorm, "running": RunningNorm}
    if policy not in kinds:
        known = [*kinds, "per_step", "group", "layer", "none"]
        raise ValueError(f"There is no normalisation policy {policy!r}; there are {known}.")
    return partial(kinds[policy], scale=scale, shift=shift, eps=eps)


def _groups(channels: int) -> int:
    """Eight groups, or as many as divide the channels."""
    return max(groups for groups in range(1, 9) if channels % groups == 0)


def _per_channel(value: Tensor, x: Tensor) -> Tensor:
    return value.view(1, -1, *[1] * (x.ndim - 2))


def _normalize_by(x: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    deviation = (variance + eps).sqrt()
    return (x - _per_channel(mean, x)) / _per_channel(deviation, x)

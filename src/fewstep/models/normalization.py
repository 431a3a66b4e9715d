"""Normalisation layers, and the choice between them: which statistics they use, with which scale and shift.

The policy decides what an accuracy means, so name it when you report results:

| policy | statistics of | consequence |
|---|---|---|
| `batch` | the current batch; in evaluation, the whole query set | transductive, as in the MAML paper: the queries are classified together, and accuracy drops if they come one at a time |
| `support` | the support set of the task, also for queries | not transductive: queries may come one at a time |
| `running` | the batch in training, running averages in evaluation | not transductive; the averages are over all training tasks |
| `per_step` | the batch, with a scale and shift for each inner step | transductive (MAML++) |
| `group`, `layer` | groups of channels, or all channels, of one image | images share no statistics |
| `none` | | no normalisation |
"""  # noqa: E501 - a table

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fewstep.arguments import check_choice, check_number, check_whole
from fewstep.models.context import current_step, given_statistics, record_statistics
from fewstep.models.second_order import max_pool, normalize, normalize_and_pool

Policy = Literal["batch", "support", "running", "per_step", "group", "layer", "none"]


class BatchNorm(nn.Module):
    """Batch normalisation by the mean and variance of the current batch, without running averages.

    In few-shot learning the query set is one batch, so its examples are classified together: the transductive setting
    of the MAML paper. First and second derivatives are computed in a few fused passes.

    Args:
        channels: the number of channels.
        scale: whether to learn a factor per channel, ``weight``. The MAML paper has none.
        shift: whether to learn an offset per channel, ``bias``.
        eps: added to the variance; 1e-3 in the paper's code.

    Examples:
        >>> BatchNorm(3)(torch.rand(8, 3, 5, 5)).std((0, 2, 3), correction=0).round(decimals=2).tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(self, channels: int, scale: bool = True, shift: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        check_whole(self._get_name(), channels=channels)
        check_number(self._get_name(), 0, eps=eps)
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels)) if scale else None
        self.bias = nn.Parameter(torch.zeros(channels)) if shift else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[examples, channels, ...]``; the shape does not change."""
        return self.scale_and_shift(self.normalize(x))

    def normalize(self, x: Tensor) -> Tensor:
        """Normalise to mean 0 and variance 1, without scale and shift."""
        return normalize(x, self.eps)

    def normalize_and_pool(self, x: Tensor, sign: Tensor | None = None) -> Tensor:
        """Normalise without scale and shift, then apply 2×2 max-pooling.

        Args:
            x: ``[examples, channels, height, width]``.
            sign: the sign of each channel, ``[channels]``, by which ``x`` was multiplied; statistics are stored without
                it.
        """
        return normalize_and_pool(x, self.eps)

    def scale_and_shift(self, x: Tensor) -> Tensor:
        """Apply the scale and the shift."""
        scale, shift = self.scale(), self.shift()
        x = x if scale is None else x * _per_channel(scale, x)
        return x if shift is None else x + _per_channel(shift, x)

    def scale(self) -> Tensor | None:
        """The factor of each channel, ``[channels]``, or ``None``."""
        return self.weight

    def shift(self) -> Tensor | None:
        """The offset of each channel, ``[channels]``, or ``None``."""
        return self.bias

    def store_adaptation(self, step: int, statistics: tuple[Tensor, Tensor] | None) -> None:
        """Store what the layer of an adapted model needs to know of its adaptation.

        Args:
            step: the number of inner steps that were taken.
            statistics: mean and variance of the support set, ``[channels]`` each, if the layer records them.
        """

    def extra_repr(self) -> str:
        return f"{self.channels}, scale={self.weight is not None}, shift={self.bias is not None}, eps={self.eps}"


class SupportNorm(BatchNorm):
    """Batch normalisation by the statistics of the support set, for queries too (Bronskill et al. 2020, section 3).

    The learner evaluates the support set before the query set. The model that
    [`MetaLearner.adapt`][fewstep.MetaLearner.adapt] returns keeps the statistics of the support set. On its own, the
    layer is [`BatchNorm`][fewstep.models.BatchNorm].

    Args:
        channels: the number of channels.
        scale: whether to learn a factor per channel.
        shift: whether to learn an offset per channel.
        eps: added to the variance.

    Examples:
        >>> import fewstep
        >>> network = torch.nn.Sequential(torch.nn.Linear(1, 8), SupportNorm(8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> learner = fewstep.maml(network, fewstep.mse, inner_lr=0.01)
        >>> adapted = learner.adapt(fewstep.tasks.Sinusoids(shots=5).sample(1)[0].support)
        >>> adapted(torch.zeros(1, 1)).shape  # a single query
        torch.Size([1, 1])
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, scale: bool = True, shift: bool = True, eps: float = 1e-5) -> None:
        super().__init__(channels, scale, shift, eps)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.is_adapted = False

    def normalize(self, x: Tensor) -> Tensor:
        given = self._given()
        if given is None:
            record_statistics(self, x)
            return normalize(x, self.eps)
        return _normalize_by(x, *given, self.eps)

    def normalize_and_pool(self, x: Tensor, sign: Tensor | None = None) -> Tensor:
        given = self._given()
        if given is None:
            record_statistics(self, x, sign)
            return normalize_and_pool(x, self.eps)
        mean, variance = given
        return _normalize_by(max_pool(x), mean if sign is None else mean * sign, variance, self.eps)

    def _given(self) -> tuple[Tensor, Tensor] | None:
        return (self.mean, self.variance) if self.is_adapted else given_statistics(self)

    def store_adaptation(self, step: int, statistics: tuple[Tensor, Tensor] | None) -> None:
        if statistics is not None:
            self.mean.copy_(statistics[0])
            self.variance.copy_(statistics[1])
            self.is_adapted = True

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.is_adapted)

    def set_extra_state(self, state: Tensor) -> None:
        self.is_adapted = bool(state)


class RunningNorm(BatchNorm):
    """Batch normalisation by the current batch in training, and by running averages in evaluation.

    After every meta-step, the learner updates the averages with the statistics of one adapted task's query set. No
    gradient flows through the averages, and test tasks do not change them.

    Args:
        channels: the number of channels.
        scale: whether to learn a factor per channel.
        shift: whether to learn an offset per channel.
        eps: added to the variance.
        momentum: the weight of the newest task in the averages.

    Examples:
        >>> RunningNorm(3).eval()(torch.full((1, 3), 2.0)).round(decimals=2).tolist()  # initially mean 0, variance 1
        [[2.0, 2.0, 2.0]]
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self, channels: int, scale: bool = True, shift: bool = True, eps: float = 1e-5, momentum: float = 0.05
    ) -> None:
        super().__init__(channels, scale, shift, eps)
        check_number("RunningNorm", 0, 1, momentum=momentum)
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def normalize(self, x: Tensor) -> Tensor:
        if not self.training:
            return _normalize_by(x, self.mean, self.variance, self.eps)
        record_statistics(self, x)
        return normalize(x, self.eps)

    def update(self, mean: Tensor, variance: Tensor) -> None:
        """Move the averages towards the given statistics.

        Args:
            mean: the mean of each channel, ``[channels]``.
            variance: the variance of each channel, ``[channels]``.
        """
        self.mean.lerp_(mean, self.momentum)
        self.variance.lerp_(variance, self.momentum)


class PerStepNorm(BatchNorm):
    """Batch normalisation by the current batch, with a scale and a shift for each inner step (MAML++, section 4).

    Scale and shift should be learned by the outer loop only, so leave them out of ``adapts``. The query loss after step
    k uses those of step k. If there are more steps than in training, the last ones are used.

    Args:
        channels: the number of channels.
        steps: the number of inner steps in training.
        eps: added to the variance.

    Examples:
        >>> PerStepNorm(64, steps=5).weight.shape
        torch.Size([5, 64])
    """

    def __init__(self, channels: int, steps: int, eps: float = 1e-5) -> None:
        check_whole("PerStepNorm", steps=steps)
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

    def store_adaptation(self, step: int, statistics: tuple[Tensor, Tensor] | None) -> None:
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
    """Make a function from a number of channels to a normalisation layer.

    Args:
        policy: ``"batch"``, ``"support"``, ``"running"``, ``"per_step"``, ``"group"``, ``"layer"`` or ``"none"``.
        scale: whether to learn a factor per channel.
        shift: whether to learn an offset per channel.
        eps: added to the variance.
        steps: the number of inner steps in training, for ``"per_step"``.

    Returns:
        A function that networks take as ``norm``.

    Raises:
        ValueError: the policy is unknown, or a number is out of range.

    Examples:
        >>> norm_layer("support", scale=False)(64)
        SupportNorm(64, scale=False, shift=True, eps=1e-05)
    """
    check_choice("norm_layer", get_args(Policy), policy=policy)
    check_number("norm_layer", 0, eps=eps)
    check_whole("norm_layer", steps=steps)
    if policy == "per_step":
        return partial(PerStepNorm, steps=steps, eps=eps)
    if policy in ("group", "layer"):
        groups = _groups if policy == "group" else lambda channels: 1
        return lambda channels: nn.GroupNorm(groups(channels), channels, eps, scale or shift)
    if policy == "none":
        return lambda channels: nn.Identity()
    kinds: dict[str, type[BatchNorm]] = {"batch": BatchNorm, "support": SupportNorm, "running": RunningNorm}
    return partial(kinds[policy], scale=scale, shift=shift, eps=eps)


def _groups(channels: int) -> int:
    """The largest number of groups, up to eight, that divides the channels."""
    return max(groups for groups in range(1, 9) if channels % groups == 0)


def _per_channel(value: Tensor, x: Tensor) -> Tensor:
    return value.view(1, -1, *[1] * (x.ndim - 2))


def _normalize_by(x: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    return (x - _per_channel(mean, x)) / _per_channel((variance + eps).sqrt(), x)

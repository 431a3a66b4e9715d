"""Policies: modules that give a distribution of actions for observations. Nothing in them knows of meta-learning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fewstep.models import MLP
from fewstep.rl.distributions import Categorical, Gaussian, MultiCategorical


class _Network(nn.Module):
    """The perceptron of both policies, with a context beside the observation if there is one."""

    def __init__(
        self,
        observations: int,
        actions: int,
        hidden: Sequence[int] = (100, 100),
        activation: Callable[[], nn.Module] = nn.ReLU,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.observations = observations
        self.network = MLP(observations + context, hidden, actions, activation)
        for layer in self.network:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.context = nn.Parameter(torch.zeros(context)) if context else None

    def outputs(self, observations: Tensor) -> Tensor:
        if observations.shape[-1] != self.observations:
            raise ValueError(
                f"{type(self).__name__} was made for observations of {self.observations} numbers; got "
                f"{observations.shape[-1]}. Make it with observations={observations.shape[-1]}."
            )
        if self.context is not None:
            context = self.context.expand(*observations.shape[:-1], -1)
            observations = torch.cat([observations, context], -1)
        output: Tensor = self.network(observations)
        return output


class GaussianPolicy(_Network):
    """Normally distributed actions: the mean by a perceptron, the standard deviation the same for all observations.

    The MAML paper's policy (section 5.3): two hidden layers of 100 units, ReLU. The logarithm of the standard deviation
    is a parameter like any other, so that adaptation moves it too. Weights are drawn by Glorot's uniform rule, biases
    are 0.

    Args:
        observations: numbers of an observation.
        actions: numbers of an action.
        hidden: width of each hidden layer.
        activation: makes the nonlinearity, a module.
        std: initial standard deviation.
        min_std: the standard deviation never falls below.
        context: length of a context vector, a parameter ``context`` of zeros that the network sees beside the
            observation (CAVIA adapts it alone); 0 for none.

    Examples:
        >>> policy = GaussianPolicy(observations=2, actions=2)
        >>> policy(torch.zeros(7, 2)).mean.shape
        torch.Size([7, 2])
    """

    def __init__(
        self,
        observations: int,
        actions: int,
        hidden: Sequence[int] = (100, 100),
        activation: Callable[[], nn.Module] = nn.ReLU,
        std: float = 1.0,
        min_std: float = 1e-6,
        context: int = 0,
    ) -> None:
        super().__init__(observations, actions, hidden, activation, context)
        if not std >= min_std > 0:
            raise ValueError(f"GaussianPolicy: std must be at least min_std and both positive; got {std}, {min_std}.")
        self.log_std = nn.Parameter(torch.full((actions,), math.log(std)))
        self.min_std = min_std

    def forward(self, observations: Tensor) -> Gaussian:
        """The distribution of actions for observations ``[..., observations]``."""
        mean = self.outputs(observations)
        return Gaussian(mean, self.log_std.clamp(min=math.log(self.min_std)).expand_as(mean))


class CategoricalPolicy(_Network):
    """One of ``actions`` actions, with logits by a perceptron; the other arguments are those of GaussianPolicy.

    Examples:
        >>> CategoricalPolicy(observations=4, actions=3)(torch.zeros(7, 4)).logits.shape
        torch.Size([7, 3])
    """

    def forward(self, observations: Tensor) -> Categorical:
        """The distribution of actions for observations ``[..., observations]``."""
        return Categorical(self.outputs(observations))


class MultiCategoricalPolicy(_Network):
    """Several choices at once (``MultiDiscrete``), with logits by a perceptron.

    Args:
        observations: numbers of an observation.
        choices: how many actions each choice has.
        hidden: width of each hidden layer.
        activation: makes the nonlinearity, a module.
        context: as of [`GaussianPolicy`][fewstep.rl.GaussianPolicy].

    Examples:
        >>> policy = MultiCategoricalPolicy(observations=4, choices=[3, 2])
        >>> policy(torch.zeros(7, 4)).sample(torch.randn(7, 2)).shape
        torch.Size([7, 2])
    """

    def __init__(
        self,
        observations: int,
        choices: Sequence[int],
        hidden: Sequence[int] = (100, 100),
        activation: Callable[[], nn.Module] = nn.ReLU,
        context: int = 0,
    ) -> None:
        super().__init__(observations, sum(choices), hidden, activation, context)
        self.choices = tuple(choices)

    def forward(self, observations: Tensor) -> MultiCategorical:
        """The distribution of actions for observations ``[..., observations]``."""
        return MultiCategorical(self.outputs(observations), self.choices)

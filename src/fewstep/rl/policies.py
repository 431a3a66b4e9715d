"""Policies: ordinary modules that return a distribution of actions for observations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fewstep.arguments import check_factory, check_number, check_whole, check_widths
from fewstep.models import MLP
from fewstep.rl.distributions import Categorical, Gaussian, MultiCategorical


class _Network(nn.Module):
    """The network of the policies, whose input is the observation and, if there is one, the context."""

    def __init__(
        self,
        observations: int,
        actions: int,
        hidden: Sequence[int] = (100, 100),
        activation: Callable[[], nn.Module] = nn.ReLU,
        context: int = 0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_whole(name, observations=observations, actions=actions)
        check_whole(name, 0, context=context)
        check_widths(name, hidden=hidden)
        check_factory(name, activation=activation)
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
                f"{type(self).__name__} expects observations of {self.observations} numbers; got "
                f"{observations.shape[-1]}. Build it with observations={observations.shape[-1]}."
            )
        if self.context is not None:
            context = self.context.expand(*observations.shape[:-1], -1)
            observations = torch.cat([observations, context], -1)
        output: Tensor = self.network(observations)
        return output


class GaussianPolicy(_Network):
    """A policy with normally distributed actions whose standard deviation does not depend on the observation.

    A network computes the mean. By default it is that of the MAML paper (section 5.3), with two hidden layers of 100
    units and ReLU. The logarithm of the standard deviation is a parameter, which adaptation changes too. Weights are
    drawn from Glorot's uniform distribution; biases are 0.

    Args:
        observations: the number of entries of an observation.
        actions: the number of entries of an action.
        hidden: the width of each hidden layer.
        activation: a function that returns the nonlinearity, such as ``nn.ReLU``.
        std: the initial standard deviation.
        min_std: a lower bound of the standard deviation.
        context: the length of the parameter ``context``, initially 0, which is concatenated to the observation (CAVIA
            adapts only this parameter); 0 for none.

    Raises:
        ValueError: ``std`` is less than ``min_std``, or ``min_std`` is not positive; when the policy is called, the
            observations do not have ``observations`` entries.

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
        check_number("GaussianPolicy", std=std, min_std=min_std)
        if not std >= min_std > 0:
            raise ValueError(
                f"GaussianPolicy: std must be at least min_std and both positive; got {std} and {min_std}."
            )
        self.log_std = nn.Parameter(torch.full((actions,), math.log(std)))
        self.min_std = min_std

    def forward(self, observations: Tensor) -> Gaussian:
        """Return the distribution of actions for observations ``[..., observations]``."""
        mean = self.outputs(observations)
        return Gaussian(mean, self.log_std.clamp(min=math.log(self.min_std)).expand_as(mean))


class CategoricalPolicy(_Network):
    """A policy with one discrete action.

    Args:
        observations: the number of entries of an observation.
        actions: the number of actions.
        hidden: the width of each hidden layer.
        activation: a function that returns the nonlinearity, such as ``nn.ReLU``.
        context: as in [`GaussianPolicy`][fewstep.rl.GaussianPolicy].

    Raises:
        ValueError: when the policy is called, the observations do not have ``observations`` entries.

    Examples:
        >>> CategoricalPolicy(observations=4, actions=3)(torch.zeros(7, 4)).logits.shape
        torch.Size([7, 3])
    """

    def forward(self, observations: Tensor) -> Categorical:
        """Return the distribution of actions for observations ``[..., observations]``."""
        return Categorical(self.outputs(observations))


class MultiCategoricalPolicy(_Network):
    """A policy with several discrete choices per action (Gymnasium's ``MultiDiscrete`` and ``MultiBinary``).

    Args:
        observations: the number of entries of an observation.
        choices: the number of values of each choice; 2 for each entry of a ``MultiBinary``.
        hidden: the width of each hidden layer.
        activation: a function that returns the nonlinearity, such as ``nn.ReLU``.
        context: as in [`GaussianPolicy`][fewstep.rl.GaussianPolicy].

    Raises:
        ValueError: when the policy is called, the observations do not have ``observations`` entries.

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
        check_widths("MultiCategoricalPolicy", empty=False, choices=choices)
        super().__init__(observations, sum(choices), hidden, activation, context)
        self.choices = tuple(choices)

    def forward(self, observations: Tensor) -> MultiCategorical:
        """Return the distribution of actions for observations ``[..., observations]``."""
        return MultiCategorical(self.outputs(observations), self.choices)

"""Distributions of actions with the closed forms of policy optimisation.

Each is a record of its parameters. ``...`` stands for leading axes, such as tasks, episodes and time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from fewstep.rl.record import STATIC, Record


class Distribution(Protocol):
    """The interface of a distribution of actions, one for each observation of a batch.

    A custom class must be a pytree of tensors, such as a dataclass that derives from [`Record`][fewstep.rl.Record]. Its
    fields are the parameters of the distribution. Only [`TRPO`][fewstep.rl.TRPO] needs ``fisher``, only it and
    [`ProMP`][fewstep.rl.ProMP] need ``kl``, and only ``act(..., deterministic=True)`` needs ``mode``.

    Examples:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Exponential(Record):  # one positive number
        ...     log_rate: Tensor
        ...
        ...     def sample(self, noise):
        ...         return -torch.special.log_ndtr(noise) * (-self.log_rate).exp()
        ...
        ...     def mode(self):
        ...         return torch.zeros_like(self.log_rate)
        ...
        ...     def log_prob(self, actions):
        ...         return (self.log_rate - self.log_rate.exp() * actions).sum(-1)
        ...
        ...     def kl(self, other):
        ...         difference = self.log_rate - other.log_rate
        ...         return (difference + (-difference).exp() - 1).sum(-1)
        ...
        ...     def fisher(self, tangent):
        ...         return tangent
        >>> policy = Exponential(torch.zeros(5, 1))
        >>> policy.log_prob(policy.sample(torch.randn(5, 1))).shape
        torch.Size([5])
    """

    def sample(self, noise: Tensor) -> Tensor:
        """Compute actions from standard normal numbers, ``[..., entries of an action]``, and no other randomness."""
        ...

    def mode(self) -> Tensor:
        """Return the most probable action, in the shape of a sample."""
        ...

    def log_prob(self, actions: Tensor) -> Tensor:
        """Compute the logarithm of the density or probability of each action, ``[...]``."""
        ...

    def kl(self, other: Any) -> Tensor:
        """Compute the Kullback-Leibler divergence KL(self ‖ other) in nats, ``[...]``."""
        ...

    def fisher(self, tangent: Any) -> Any:
        """Multiply the Fisher information matrix of the parameters by a tangent vector, for each observation.

        The tangent vector and the product are distributions of the same class, with one entry per parameter. The matrix
        is also the Hessian of KL(self ‖ other) in ``other`` at ``other = self``.
        """
        ...


@dataclass(frozen=True, eq=False)
class Gaussian(Record):
    """Independent normal distributions of the entries of an action.

    The methods are those of [`Distribution`][fewstep.rl.Distribution].

    Args:
        mean: the mean of each entry, ``[..., actions]``.
        log_std: the logarithm of the standard deviation, ``[..., actions]``.

    Examples:
        >>> policy = Gaussian(torch.zeros(5, 2), torch.zeros(5, 2))
        >>> policy.log_prob(policy.sample(torch.randn(5, 2))).shape
        torch.Size([5])
    """

    mean: Tensor
    log_std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, actions: Tensor) -> Tensor:
        standardised = (actions - self.mean) * (-self.log_std).exp()
        return -(0.5 * standardised.square() + self.log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def kl(self, other: Gaussian) -> Tensor:
        ratio = (2 * (self.log_std - other.log_std)).exp()
        distance = (self.mean - other.mean).square() * (-2 * other.log_std).exp()
        return (other.log_std - self.log_std + 0.5 * (ratio + distance - 1)).sum(-1)

    def fisher(self, tangent: Gaussian) -> Gaussian:
        return Gaussian(tangent.mean * (-2 * self.log_std).exp(), 2 * tangent.log_std)


@dataclass(frozen=True, eq=False)
class Categorical(Record):
    """A distribution over actions 0 … n − 1.

    The methods are those of [`Distribution`][fewstep.rl.Distribution].

    Args:
        logits: unnormalised logarithms of the probabilities, ``[..., n]``.

    Examples:
        >>> policy = Categorical(torch.zeros(5, 3))
        >>> policy.log_prob(policy.sample(torch.randn(5, 1))).exp()
        tensor([0.3333, 0.3333, 0.3333, 0.3333, 0.3333])
    """

    logits: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        below = self.logits.softmax(-1).cumsum(-1)[..., :-1]  # cumulative probabilities
        return (torch.special.ndtr(noise) > below).sum(-1)

    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self.logits.log_softmax(-1).gather(-1, actions[..., None]).squeeze(-1)

    def kl(self, other: Categorical) -> Tensor:
        log_p, log_q = self.logits.log_softmax(-1), other.logits.log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    def fisher(self, tangent: Categorical) -> Categorical:
        p = self.logits.softmax(-1)
        return Categorical(p * (tangent.logits - (p * tangent.logits).sum(-1, keepdim=True)))


@dataclass(frozen=True, eq=False)
class MultiCategorical(Record):
    """Independent discrete choices; choice i has the values 0 … ``choices[i]`` − 1 (Gymnasium's ``MultiDiscrete``).

    The methods are those of [`Distribution`][fewstep.rl.Distribution].

    Args:
        logits: unnormalised logarithms of the probabilities of all choices, concatenated, ``[..., sum(choices)]``.
        choices: the number of values of each choice.

    Examples:
        >>> policy = MultiCategorical(torch.zeros(5, 5), choices=(3, 2))
        >>> policy.log_prob(policy.sample(torch.randn(5, 2))).exp()
        tensor([0.1667, 0.1667, 0.1667, 0.1667, 0.1667])
    """

    logits: Tensor
    choices: tuple[int, ...] = field(metadata=STATIC)

    def sample(self, noise: Tensor) -> Tensor:
        return torch.stack([one.sample(noise[..., i : i + 1]) for i, one in enumerate(self._each())], -1)

    def mode(self) -> Tensor:
        return torch.stack([one.mode() for one in self._each()], -1)

    def log_prob(self, actions: Tensor) -> Tensor:
        return torch.stack([one.log_prob(actions[..., i]) for i, one in enumerate(self._each())]).sum(0)

    def kl(self, other: MultiCategorical) -> Tensor:
        return torch.stack([own.kl(its) for own, its in zip(self._each(), other._each(), strict=True)]).sum(0)

    def fisher(self, tangent: MultiCategorical) -> MultiCategorical:
        products = [own.fisher(its).logits for own, its in zip(self._each(), tangent._each(), strict=True)]
        return MultiCategorical(torch.cat(products, -1), self.choices)

    def _each(self) -> list[Categorical]:
        return [Categorical(logits) for logits in self.logits.split(self.choices, -1)]

"""Conversion of a policy's actions to an action space."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewstep.rl.outputs import choices_of


class ActionMap:
    """A function that converts the actions of a policy to an environment's action space.

    * ``Box``: numbers in [−1, 1] are mapped linearly to [low, high] and clipped. Where a bound is infinite (as with
      ``ClipAction``), the number is the action itself, clipped at the other bound. A ``Box`` with several axes
      corresponds to one vector of the policy.
    * ``Discrete``, ``MultiDiscrete``, ``MultiBinary``: the policy's actions start at 0, the environment's at ``start``.

    Args:
        space: the action space of one copy.

    Raises:
        TypeError: the space is not supported.
        ValueError: when it is called, a discrete action is out of range.

    Examples:
        >>> import torch
        >>> from gymnasium.spaces import Box, Discrete
        >>> ActionMap(Box(-2.0, 2.0, (1,)))(torch.tensor([[0.5], [-3.0]])).tolist()
        [[1.0], [-2.0]]
        >>> ActionMap(Discrete(3, start=-1))(torch.tensor([0, 2])).tolist()
        [-1, 1]
    """

    def __init__(self, space: Any) -> None:
        from gymnasium import spaces  # optional; present if there is a space

        self.space = space
        self.choices: NDArray[Any] | None = None
        if isinstance(space, spaces.Discrete):
            self.choices, self._start = np.array(space.n), np.array(space.start)
        elif isinstance(space, spaces.MultiDiscrete):
            self.choices, self._start = space.nvec.reshape(-1), space.start.reshape(-1)
        elif isinstance(space, spaces.MultiBinary):
            self.choices = np.full(int(np.prod(space.shape)), 2)
            self._start = np.zeros_like(self.choices)
        elif isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
            # Some environments use the largest floating-point number for "no bound".
            largest = float(np.finfo(space.dtype).max)
            low, high = (bound.astype(np.float64).reshape(-1) for bound in (space.low, space.high))
            self._low, self._high = low, high
            self._finite = (np.abs(low) < largest) & (np.abs(high) < largest)
            self._from = np.where(self._finite, low, 0.0)
            self._range = np.where(self._finite, high, 0.0) - self._from
        else:
            raise TypeError(
                "The action space must be Discrete, MultiDiscrete, MultiBinary or a Box of floating-point numbers; got "
                f"{space}. Wrap the environment in gymnasium.wrappers.TransformAction."
            )

    @property
    def numbers(self) -> int:
        """The number of entries of an action."""
        return int(np.prod(self.space.shape))

    def check(self, distribution: Any, noise: Tensor, who: str) -> None:
        """Check that a policy's distribution fits the space.

        Args:
            distribution: the output of the policy.
            noise: the standard normal numbers from which actions are computed, ``[..., numbers]``.
            who: the name of the environment, for the message.

        Raises:
            ValueError: the number, dtype or range of the actions does not fit, or ``log_prob`` has the wrong shape.
        """
        leading = tuple(noise.shape[:-1])
        expected = (self.numbers,) if self.choices is None else self.choices.shape
        # The mode has the size of the distribution. A sample may be larger, since noise is broadcast.
        modal = callable(getattr(distribution, "mode", None))
        actions: Tensor = distribution.mode() if modal else distribution.sample(noise)
        fits = tuple(actions.shape) == (*leading, *expected)
        if self.choices is None:
            if not fits or not actions.is_floating_point():
                numbers = actions.is_floating_point() and tuple(actions.shape[:-1]) == leading
                raise ValueError(
                    f"{who} expects actions of {self.numbers} numbers ({self.space}); the policy returned "
                    f"{actions.shape[-1] if numbers else _described(actions)}. Build the policy with "
                    f"GaussianPolicy(observations, actions={self.numbers})."
                )
        else:
            wanted, given = tuple(self.choices.reshape(-1).tolist()), choices_of(distribution)
            if not fits or actions.is_floating_point() or given not in (None, wanted):
                policy = (
                    f"CategoricalPolicy(observations, actions={wanted[0]})"
                    if self.choices.ndim == 0
                    else f"MultiCategoricalPolicy(observations, choices={wanted})"
                )
                raise ValueError(
                    f"{who} expects choices among {_listed(wanted)} actions ({self.space}); the policy returned "
                    f"{_described(actions) if given is None else f'choices among {_listed(given)}'}. Build the policy "
                    f"with {policy}."
                )
        log_probs = distribution.log_prob(actions)
        if tuple(log_probs.shape) != leading:
            raise ValueError(
                f"log_prob must return one number per action, shape {list(leading)}; got shape "
                f"{list(log_probs.shape)}. Sum over the last axis, the entries of an action."
            )

    def __call__(self, actions: Tensor) -> NDArray[Any]:
        """Convert a policy's actions, ``[n, numbers]`` or integers ``[n]``, to actions of the space, ``[n, ...]``."""
        came = actions.detach().cpu().numpy()
        if self.choices is not None:
            if (came < 0).any() or (came >= self.choices).any():
                raise ValueError(
                    f"Expected actions of {self.space}, counted from 0; the policy returned "
                    f"{came[(came < 0) | (came >= self.choices)][0]}. Return integers from 0 to n − 1."
                )
            return (came + self._start).reshape(len(came), *self.space.shape)
        scaled = np.where(self._finite, self._from + (came + 1) / 2 * self._range, came)
        return np.clip(scaled, self._low, self._high).reshape(len(came), *self.space.shape)


def _described(actions: Tensor) -> str:
    kind = "floating-point numbers" if actions.is_floating_point() else "integers"
    return f"{kind} of shape {list(actions.shape)}"


def _listed(choices: tuple[int, ...]) -> str:
    return " and ".join(map(str, choices))

"""Conversion of a policy's actions to an action space."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewstep.rl.outputs import choices_of


class ActionMap:
    """Convert the actions of a policy to an environment's action space, and check that they fit.

    * ``Box``: numbers in [−1, 1] are mapped linearly to [low, high] and clipped. Where a bound is infinite (as with
      ``ClipAction``), the number is the action itself, clipped at the other bound. Actions with several axes are
      flattened.
    * ``Discrete``, ``MultiDiscrete``, ``MultiBinary``: the policy's actions start at 0, the environment's at ``start``.

    Args:
        space: the action space of one copy.

    Raises:
        TypeError: the space is of another kind.

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
        """Raise if a policy's distribution does not fit the space.

        Args:
            distribution: the output of the policy.
            noise: standard normal numbers that actions are computed from, ``[..., numbers]``.
            who: the name of the environment, for the message.

        Raises:
            ValueError: number, dtype or range of the actions do not fit.
        """
        leading = tuple(noise.shape[:-1])
        expected = (self.numbers,) if self.choices is None else self.choices.shape
        # The mode has the distribution's own size; in a sample noise of another size may be broadcast.
        modal = callable(getattr(distribution, "mode", None))
        actions: Tensor = distribution.mode() if modal else distribution.sample(noise)
        fits = tuple(actions.shape) == (*leading, *expected)
        if self.choices is None:
            if not fits or not actions.is_floating_point():
                numbers = actions.is_floating_point() and tuple(actions.shape[:-1]) == leading
                raise ValueError(
                    f"{who} takes actions of {self.numbers} numbers, {self.space}, and the policy gives "
                    f"{actions.shape[-1] if numbers else _described(actions)}. Make the policy for {self.numbers}: "
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
                    f"{who} takes choices among {_listed(wanted)} actions, {self.space}, and the policy gives "
                    f"{_described(actions) if given is None else f'choices among {_listed(given)}'}. Take {policy}."
                )
        log_probs = distribution.log_prob(actions)
        if tuple(log_probs.shape) != leading:
            raise ValueError(
                f"A policy's log_prob must give one number for each action, {list(leading)} here; got "
                f"{list(log_probs.shape)}. Sum over the numbers of an action."
            )

    def __call__(self, actions: Tensor) -> NDArray[Any]:
        """Convert a policy's actions, ``[n, numbers]`` or integers ``[n]``, to the environment's, ``[n, ...]``."""
        came = actions.detach().cpu().numpy()
        if self.choices is not None:
            if (came < 0).any() or (came >= self.choices).any():
                raise ValueError(
                    f"The policy gave action {came[(came < 0) | (came >= self.choices)][0]}, outside of {self.space}; "
                    "its actions count from 0."
                )
            return (came + self._start).reshape(len(came), *self.space.shape)
        scaled = np.where(self._finite, self._from + (came + 1) / 2 * self._range, came)
        return np.clip(scaled, self._low, self._high).reshape(len(came), *self.space.shape)


def _described(actions: Tensor) -> str:
    kind = "floating-point numbers" if actions.is_floating_point() else "integers"
    return f"{kind} of shape {list(actions.shape)}"


def _listed(choices: tuple[int, ...]) -> str:
    return " and ".join(map(str, choices))

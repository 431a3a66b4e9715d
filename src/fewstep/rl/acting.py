"""Actions of a policy in the units of an environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewstep.rl.actions import ActionMap
from fewstep.rl.outputs import distribution_of


class Act:
    """A function from an observation to an action in the units of an environment: ``act(observation)``.

    The policy that [`adapt`][fewstep.rl.MetaPolicy.adapt] returns has one as its attribute ``act``. It stores the
    environment's spaces but not the environment, so that it is saved and copied with the policy.

    Args:
        policy: a module that returns a distribution of actions for observations.
        environment: a vector environment with tasks, which defines the spaces.

    Raises:
        TypeError: the action space is not supported.

    Examples:
        >>> from fewstep.rl import GaussianPolicy, environments
        >>> act = Act(GaussianPolicy(2, 2), environments.PointNavigation(num_envs=1))
        >>> act(np.zeros(2), deterministic=True)
        array([0., 0.], dtype=float32)
    """

    def __init__(self, policy: nn.Module, environment: Any) -> None:
        self.policy = policy
        self.action_space = environment.single_action_space
        self.observation_space = environment.single_observation_space
        self._unflattened = getattr(environment, "unflattened_observation_space", self.observation_space)
        self._to_space = ActionMap(self.action_space)

    @torch.no_grad()
    def __call__(
        self, observation: Any, deterministic: bool = False, generator: torch.Generator | None = None
    ) -> NDArray[Any]:
        """Return an action of the environment's action space.

        Args:
            observation: one observation in the format of the environment (an array, a tensor, or a dictionary for a
                ``Dict`` space), or several as one array ``[n, ...]``.
            deterministic: whether to return the most probable action instead of a random one.
            generator: the source of randomness; PyTorch's default generator if not given.

        Returns:
            An action in the dtype of the action space; ``[n, ...]`` for several observations.

        Raises:
            ValueError: the shape of the observation is not that of the observation space, or the policy does not fit
                the action space.
            TypeError: the policy does not return a supported distribution, or ``deterministic`` is set and the
                distribution has no method ``mode``.
        """
        seen, several = self._as_batch(observation)
        like: Any = next(self.policy.parameters(), torch.zeros(()))
        distribution: Any = distribution_of(self.policy, torch.as_tensor(seen).to(like))
        noise = torch.randn(len(seen), max(self._to_space.numbers, 1), generator=generator).to(like)
        self._to_space.check(distribution, noise, "The environment")
        if deterministic:
            if not callable(getattr(distribution, "mode", None)):
                raise TypeError(
                    "deterministic=True expects a distribution with a method mode(); "
                    f"{type(distribution).__name__} has none. Add it, or use deterministic=False."
                )
            actions = distribution.mode()
        else:
            actions = distribution.sample(noise)
        found: NDArray[Any] = self._to_space(actions).astype(self.action_space.dtype)
        return found if several else found[0]

    def _as_batch(self, observation: Any) -> tuple[NDArray[Any], bool]:
        """Observations as a batch ``[n, ...]``, and whether the input was a batch."""
        shape = self.observation_space.shape
        if isinstance(observation, Tensor):
            observation = observation.cpu().numpy()
        flat = isinstance(observation, np.ndarray) and observation.shape[-len(shape) :] == shape
        if self._unflattened is not self.observation_space and not flat:
            from gymnasium.spaces import flatten  # optional; present if there is such a space

            observation = flatten(self._unflattened, observation)
        seen = np.asarray(observation)
        if seen.shape == shape:
            return seen[None], False
        if seen.shape[1:] != shape:
            raise ValueError(
                f"act: expected one observation of shape {list(shape)}, or several, [n, "
                f"{', '.join(map(str, shape))}]; got shape {list(seen.shape)}. Pass observations as the environment "
                "returns them."
            )
        return seen, True

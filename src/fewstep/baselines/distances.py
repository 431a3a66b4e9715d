"""Similarities between two sets of feature vectors."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Similarity = Callable[[Tensor, Tensor], Tensor]
"""A function from feature vectors ``[n, d]`` and ``[m, d]`` to the similarity of each pair, ``[n, m]``."""


def negative_squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """The negative squared Euclidean distance −‖a_i − b_j‖² of each pair, ``[n, m]``."""
    return -(a[:, None] - b).square().sum(-1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine a_i·b_j / (‖a_i‖‖b_j‖) of each pair, ``[n, m]``."""
    return functional.normalize(a, dim=-1) @ functional.normalize(b, dim=-1).mT


def similarity(distance: str) -> Similarity:
    """The similarity for ``"euclidean"`` or ``"cosine"``.

    Raises:
        ValueError: ``distance`` is unknown.
    """
    choices: dict[str, Similarity] = {"euclidean": negative_squared_distance, "cosine": cosine}
    if not isinstance(distance, str) or distance not in choices:
        raise ValueError(f'distance must be "euclidean" or "cosine"; got {distance!r}.')
    return choices[distance]

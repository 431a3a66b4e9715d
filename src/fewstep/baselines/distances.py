"""How alike two sets of feature vectors are."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Similarity = Callable[[Tensor, Tensor], Tensor]
"""From feature vectors ``[n, d]`` and ``[m, d]`` to a number for each pair, ``[n, m]``; larger is nearer."""


def negative_squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """−‖a_i − b_j‖²."""
    return -(a[:, None] - b).square().sum(-1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """a_i·b_j / (‖a_i‖‖b_j‖)."""
    return functional.normalize(a, dim=-1) @ functional.normalize(b, dim=-1).mT


def similarity(distance: str) -> Similarity:
    """The similarity that belongs to ``"euclidean"`` or ``"cosine"``."""
    choices: dict[str, Similarity] = {"euclidean": negative_squared_distance, "cosine": cosine}
    if distance not in choices:
        raise ValueError(f'distance must be "euclidean" or "cosine"; got {distance!r}.')
    return choices[distance]

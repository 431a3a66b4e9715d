"""Labelled images, sorted by class: what episodes are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """All examples of some classes in one tensor.

    Args:
        images: sorted by class, ``[examples, channels, height, width]`` of uint8 (0 … 255), or floating-point examples
            of any shape. May be mapped from a file.
        starts: where each class starts, and the end: int64, ``[classes + 1]``.
        classes: their names.

    Raises:
        ValueError: ``starts`` does not divide the examples into that many classes.

    >>> vowels = LabelledImages(torch.zeros(5, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 2, 5]), ["a", "e"])
    >>> len(vowels), vowels.counts
    (5, tensor([2, 3]))
    """

    images: Tensor
    starts: Tensor
    classes: Sequence[str]

    def __post_init__(self) -> None:
        starts = self.starts
        if len(starts) != len(self.classes) + 1 or starts[0] != 0 or starts[-1] != len(self.images):
            raise ValueError(
                f"LabelledImages: {len(self.classes)} classes of {len(self.images)} examples need "
                f"{len(self.classes) + 1} starts from 0 to {len(self.images)}; "
                f"got {len(starts)} from {int(starts[0])} to {int(starts[-1])}."
            )
        if (starts.diff() < 1).any():
            empty = self.classes[int((starts.diff() < 1).nonzero()[0])]
            raise ValueError(f"LabelledImages: class {empty!r} has no examples; leave it out.")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def counts(self) -> Tensor:
        """Examples of each class, ``[classes]``."""
        return self.starts.diff()

    @property
    def labels(self) -> Tensor:
        """The class of each example, ``[examples]``."""
        return torch.repeat_interleave(torch.arange(len(self.classes)), self.counts)

    def to(self, device: torch.device | str) -> LabelledImages:
        """The images on another device, from where episodes then come."""
        return LabelledImages(self.images.to(device), self.starts, self.classes)

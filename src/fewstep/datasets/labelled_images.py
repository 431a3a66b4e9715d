"""Labelled images, sorted by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.arguments import check_generator


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """All examples of some classes in one tensor.

    Args:
        images: the examples, sorted by class: ``[examples, channels, height, width]`` of uint8 (0 to 255), or
            ``[examples, ...]`` of another dtype. May be mapped from a file.
        starts: the index of the first example of each class, and the number of examples: int64, ``[classes + 1]``.
        classes: the names of the classes.

    Raises:
        ValueError: ``starts`` does not divide the examples into as many classes as there are names.

    Examples:
        >>> vowels = LabelledImages(torch.zeros(5, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 2, 5]), ["a", "e"])
        >>> len(vowels), vowels.counts
        (5, tensor([2, 3]))
    """

    images: Tensor
    starts: Tensor
    classes: Sequence[str]

    def __post_init__(self) -> None:
        starts = self.starts
        if not isinstance(self.images, Tensor) or not isinstance(starts, Tensor):
            kinds = f"{type(self.images).__name__} and {type(starts).__name__}"
            raise TypeError(
                f"LabelledImages: images and starts must be tensors; got {kinds}. For arrays and labels: "
                "fewstep.datasets.from_arrays(x, y)."
            )
        if not isinstance(self.classes, Sequence):
            raise TypeError(f"LabelledImages: classes must be a list of names; got {type(self.classes).__name__}.")
        if len(starts) != len(self.classes) + 1 or starts[0] != 0 or starts[-1] != len(self.images):
            raise ValueError(
                f"LabelledImages: {len(self.classes)} classes of {len(self.images)} examples need "
                f"{len(self.classes) + 1} starts from 0 to {len(self.images)}; "
                f"got {len(starts)} from {int(starts[0])} to {int(starts[-1])}."
            )
        if (starts.diff() < 1).any():
            empty = self.classes[int((starts.diff() < 1).nonzero()[0])]
            raise ValueError(f"LabelledImages: class {empty!r} has no examples. Leave it out.")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def counts(self) -> Tensor:
        """The number of examples of each class, ``[classes]``."""
        return self.starts.diff()

    @property
    def labels(self) -> Tensor:
        """The class index of each example, ``[examples]``."""
        return torch.repeat_interleave(torch.arange(len(self.classes)), self.counts)

    def select(self, classes: Sequence[str | int]) -> LabelledImages:
        """Select classes by name or index, in this order; their images are copied.

        Args:
            classes: names or indices.

        Raises:
            ValueError: a class is unknown or is named twice.

        Examples:
            >>> digits = LabelledImages(torch.arange(6.0), torch.tensor([0, 2, 3, 6]), ["0", "1", "2"])
            >>> some = digits.select(["2", 0])
            >>> some.images, some.classes
            (tensor([3., 4., 5., 0., 1.]), ['2', '0'])
        """
        if not isinstance(classes, Sequence):
            raise TypeError(f"select: classes must be a list of names or indices; got {classes!r}.")
        positions = [self._position(name) for name in classes]
        if not positions or len(set(positions)) < len(positions):
            raise ValueError(f"select: name at least one class, each once; got {list(classes)}.")
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), self.counts[positions].cumsum(0)])
        images = torch.cat([self.images[self.starts[i] : self.starts[i + 1]] for i in positions])
        return LabelledImages(images, starts, [self.classes[i] for i in positions])

    def split(self, sizes: Sequence[int], generator: torch.Generator | None = None) -> list[LabelledImages]:
        """Divide the classes at random, for instance into training, validation and test classes.

        Args:
            sizes: the number of classes of each part; the sum is the number of classes.
            generator: the source of randomness.

        Raises:
            ValueError: a size is less than 1, or the sum is not the number of classes.

        Examples:
            >>> digits = LabelledImages(torch.arange(6.0), torch.tensor([0, 2, 3, 6]), ["0", "1", "2"])
            >>> train, test = digits.split([2, 1], torch.Generator().manual_seed(0))
            >>> len(train.classes), len(test.classes)
            (2, 1)
        """
        check_generator("split", generator)
        if not isinstance(sizes, Sequence) or not all(isinstance(size, int) for size in sizes) or not sizes:
            raise TypeError(f"split: sizes must be a list of whole numbers, such as [64, 16, 20]; got {sizes!r}.")
        if sum(sizes) != len(self.classes) or min(sizes) < 1:
            raise ValueError(
                f"split: sizes must be at least 1 and add up to the {len(self.classes)} classes; got {list(sizes)}."
            )
        order = torch.randperm(len(self.classes), generator=generator)
        return [self.select(sorted(part.tolist())) for part in order.split(list(sizes))]

    def _position(self, name: str | int) -> int:
        if isinstance(name, int):
            if 0 <= name < len(self.classes):
                return name
        elif name in self.classes:
            return self.classes.index(name)
        raise ValueError(f"Class {name!r} is not one of the {len(self.classes)} classes, such as {self.classes[0]!r}.")

    def to(self, device: torch.device | str) -> LabelledImages:
        """Move the images to a device, where episodes are then drawn."""
        return LabelledImages(self.images.to(device), self.starts, self.classes)

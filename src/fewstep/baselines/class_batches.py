"""A task source for ordinary classification: labelled batches over all classes."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fewstep.arguments import check_attributes, check_draw, check_whole
from fewstep.tasks import Batch, Task


class ClassifiedImages(Protocol):
    """Images sorted by class, such as [`LabelledImages`][fewstep.datasets.LabelledImages]."""

    @property
    def images(self) -> Tensor:
        """The images, ``[examples, channels, height, width]`` of uint8."""
        ...

    @property
    def starts(self) -> Tensor:
        """The first index of each class, and the number of examples: int64, ``[classes + 1]``."""
        ...


class ClassBatches:
    """Batches of images of all classes with their labels 0, ..., classes − 1, drawn with replacement.

    A task has such a batch as both its support and its query set. With ``meta_batch=1``, [`fit`][fewstep.fit] performs
    ordinary classification. Pixel values are divided by 255.

    Args:
        dataset: images sorted by class, such as [`LabelledImages`][fewstep.datasets.LabelledImages].
        size: images per batch.

    Raises:
        ValueError: ``size`` is less than 1, or ``starts`` does not divide the images into classes.

    Examples:
        >>> from types import SimpleNamespace
        >>> images = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1)
        >>> tasks = ClassBatches(SimpleNamespace(images=images, starts=torch.tensor([0, 2, 6])), size=4).sample(3)
        >>> tasks.query.x.shape, tasks.query.y.shape
        (torch.Size([3, 4, 1, 1, 1]), torch.Size([3, 4]))
    """

    def __init__(self, dataset: ClassifiedImages, size: int = 64) -> None:
        check_whole("ClassBatches", size=size)
        check_attributes(
            "ClassBatches", "a data set, such as fewstep.datasets.glyphs()", ("images", "starts"), dataset=dataset
        )
        starts, images = dataset.starts, dataset.images
        if len(starts) < 2 or int(starts[0]) != 0 or int(starts[-1]) != len(images) or bool((starts.diff() < 0).any()):
            raise ValueError(
                f"ClassBatches: starts must increase from 0 to the number of images, {len(images)}; "
                f"got {starts.tolist()}."
            )
        self.dataset, self.size = dataset, size

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.dataset.starts) - 1

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        """Draw ``n`` batches: x ``[n, size, channels, height, width]``, y ``[n, size]``."""
        check_draw("ClassBatches.sample", n, generator)
        images, starts = self.dataset.images, self.dataset.starts
        index = torch.randint(len(images), (n, self.size), generator=generator).to(images.device)
        labels = torch.searchsorted(starts.to(index.device), index, right=True) - 1
        batch = Batch(images[index].to(torch.get_default_dtype()) / 255, labels)
        return Task(batch, batch)

"""N-way K-shot episodes of labelled images (Vinyals et al. 2016, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from fewstep.arguments import check_attributes, check_draw, check_whole
from fewstep.tasks.batch import Batch, Task


class LabelledExamples(Protocol):
    """The interface of data sets for episodes, such as [`LabelledImages`][fewstep.datasets.LabelledImages]."""

    @property
    def images(self) -> Tensor:
        """All examples, sorted by class, ``[examples, ...]``; uint8 means pixels, 0 to 255."""
        ...

    @property
    def starts(self) -> Tensor:
        """The index of each class's first example, then the number of examples: int64, ``[classes + 1]``."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes."""
        ...


class Episodes:
    """A source of N-way K-shot classification tasks (Vinyals et al. 2016, section 4.1).

    Each task has N random classes, K support examples of each, and further query examples. Classes, and examples within
    a class, are drawn without replacement. Within a task, examples are sorted by label, and labels are assigned to
    classes at random.

    Args:
        dataset: labelled images, such as ``fewstep.datasets.omniglot(...)``.
        ways: the number of classes per task, N.
        shots: the number of support examples per class, K.
        queries: the number of query examples per class.
        rotations: whether to rotate the images of each class of a task by 0, 90, 180 or 270 degrees at random, as the
            papers do with Omniglot. A task never contains the same character in two rotations.

    Raises:
        ValueError: a number is too small, there are too few classes or examples, or ``rotations`` is used with images
            that are not square.

    Examples:
        >>> import fewstep
        >>> glyphs = Episodes(fewstep.datasets.glyphs("test"), ways=5, shots=1, queries=2)
        >>> tasks = glyphs.sample(4)
        >>> tasks.support.x.shape, tasks.query.y[0]
        (torch.Size([4, 5, 1, 28, 28]), tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4]))
    """

    def __init__(self, dataset: LabelledExamples, ways: int, shots: int, queries: int, rotations: bool = False) -> None:
        check_whole("Episodes", 2, ways=ways)
        check_whole("Episodes", shots=shots, queries=queries)
        check_attributes(
            "Episodes", "a data set, such as fewstep.datasets.glyphs()", ("images", "starts"), dataset=dataset
        )
        counts = dataset.starts.diff()
        if len(counts) < ways:
            raise ValueError(f"Episodes: {ways} ways need as many classes; the data set has {len(counts)}.")
        if counts.min() < shots + queries:
            smallest = int(counts.argmin())
            raise ValueError(
                f"Episodes: {shots} shots and {queries} queries need {shots + queries} examples of every class; "
                f"class {dataset.classes[smallest]!r} has {int(counts[smallest])}. Ask for fewer, or leave it out."
            )
        shape = dataset.images.shape[1:]
        if rotations and (len(shape) != 3 or shape[1] != shape[2]):
            raise ValueError(f"Episodes: rotations need square images [channels, size, size]; got {tuple(shape)}.")
        self.dataset, self.ways, self.shots, self.queries, self.rotations = dataset, ways, shots, queries, rotations
        self._starts, self._counts = dataset.starts[:-1], counts
        self._equal = bool((counts == counts[0]).all())

    def to(self, device: torch.device | str) -> Episodes:
        """The same source with all images on a device, so that tasks are made there.

        Args:
            device: such as ``"cuda"``.
        """
        images = self.dataset.images
        if images.device == torch.device(device):
            return self
        moved = _Examples(images.to(device), self.dataset.starts, self.dataset.classes)
        return Episodes(moved, self.ways, self.shots, self.queries, self.rotations)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        """Draw tasks.

        Args:
            n: the number of tasks.
            generator: of the random numbers; ``None`` for PyTorch's global one.

        Returns:
            Support inputs ``[n, ways·shots, channels, height, width]`` and labels ``[n, ways·shots]``; the query set
            has ``ways·queries`` examples instead. Pixels (uint8) are converted to floats between 0 and 1; inputs of
            other dtypes are not changed.
        """
        check_draw("Episodes.sample", n, generator)
        per_class = self.shots + self.queries
        classes = torch.rand(n, len(self._counts), generator=generator).topk(self.ways).indices
        counts = self._counts[classes]
        keys = torch.rand(n, self.ways, int(counts.max()), generator=generator)
        if not self._equal:
            keys.masked_fill_(torch.arange(keys.shape[-1]) >= counts[..., None], -1.0)
        chosen = self._starts[classes][..., None] + keys.topk(per_class).indices
        turns = torch.randint(4, (n, self.ways), generator=generator) if self.rotations else None
        return Task(
            self._batch(chosen[..., : self.shots], turns),
            self._batch(chosen[..., self.shots :], turns),
        )

    def _batch(self, chosen: Int[Tensor, "n ways each"], turns: Int[Tensor, "n ways"] | None) -> Batch:
        """The chosen examples, ``[n, ways, examples per class]``, as one batch with a task axis."""
        images = self.dataset.images
        n, ways, each = chosen.shape
        x = images[chosen.flatten().to(images.device)]
        if turns is not None:
            x = _rotate(x, turns.repeat_interleave(each, 1).flatten().to(x.device))
        if x.dtype == torch.uint8:
            x = x.float().div_(255)
        labels = torch.arange(ways, device=x.device).repeat_interleave(each).expand(n, -1)
        return Batch(x.unflatten(0, (n, ways * each)), labels)


@dataclass(frozen=True, eq=False)
class _Examples:
    images: Tensor
    starts: Tensor
    classes: Sequence[str]


def _rotate(
    images: Shaped[Tensor, "count channels size size"], turns: Int[Tensor, " count"]
) -> Shaped[Tensor, "count channels size size"]:
    """Rotate each of ``[count, channels, size, size]`` by its number of quarter turns, ``[count]``."""
    rotated = torch.stack([images.rot90(quarter, (2, 3)) for quarter in range(4)])
    return rotated[turns, torch.arange(len(images), device=images.device)]

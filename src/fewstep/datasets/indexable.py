"""Data sets from those of other libraries: any indexable object that returns images and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fewstep.arguments import check_attributes
from fewstep.datasets.decoding import check_image_size, pixels
from fewstep.datasets.labelled_images import LabelledImages
from fewstep.datasets.sorting import Example, sorted_by_class


class Indexable(Protocol):
    """A data set with a length and integer indices, such as one of torchvision or Hugging Face, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def from_dataset(
    dataset: Indexable, size: int | None = None, channels: int = 3, image: str = "image", label: str = "label"
) -> LabelledImages:
    """Read a data set of another library into memory, sorted by class.

    An example is an (image, label) pair, as in torchvision, or a dictionary, as in Hugging Face's datasets. An image is
    a Pillow image, an array ``[height, width]`` or ``[height, width, channels]``, or a tensor
    ``[channels, height, width]``, of uint8 or of floating-point numbers in [0, 1]. A label is an integer or a string.
    Class names are taken from ``dataset.classes`` or ``dataset.features[label].names`` where these exist.

    Args:
        dataset: an object with ``__len__`` and ``__getitem__``.
        size: height and width in pixels, to which images are scaled with the Lanczos filter; not scaled if not given.
        channels: 3 for colour, 1 for greyscale.
        image: the key of the image in a dictionary.
        label: the key of the label in a dictionary.

    Returns:
        Images ``[examples, channels, size, size]`` of uint8.

    Raises:
        ValueError: the data set is empty, or its images differ in size and ``size`` is not given.
        TypeError: an example, an image or a label is of another kind.

    Examples:
        >>> pairs = [(np.zeros((8, 8), np.uint8), "dark"), (np.ones((8, 8)), "light"), (np.zeros((8, 8)), "dark")]
        >>> shades = from_dataset(pairs, channels=1)
        >>> shades.classes, shades.counts, shades.images.shape
        (['dark', 'light'], tensor([2, 1]), torch.Size([3, 1, 8, 8]))
    """
    check_attributes("from_dataset", "a data set or a list", ("__len__", "__getitem__"), dataset=dataset)
    check_image_size("from_dataset", size, channels)

    def examples() -> Iterator[Example]:
        for i in range(len(dataset)):
            picture, answer = _pair(dataset[i], i, image, label)
            yield _label(answer, i), i, pixels(_opened(picture, i), size, channels)

    classes = list(sorted_by_class(examples()))
    if not classes:
        raise ValueError("from_dataset: the data set is empty.")
    names = _names(dataset, label)
    images = torch.from_numpy(np.concatenate([images for _, images in classes])).permute(0, 3, 1, 2)
    starts = torch.tensor([0, *(len(images) for _, images in classes)]).cumsum(0)
    return LabelledImages(
        images,
        starts,
        [names[key] if isinstance(key, int) and 0 <= key < len(names) else str(key) for key, _ in classes],
    )


def _pair(example: Any, i: int, image: str, label: str) -> tuple[Any, Any]:
    if isinstance(example, (tuple, list)) and len(example) == 2:
        return example[0], example[1]
    if isinstance(example, dict) and image in example and label in example:
        return example[image], example[label]
    found = list(example) if isinstance(example, dict) else type(example).__name__
    raise TypeError(
        f"from_dataset: example {i} must be an (image, label) pair, or a dictionary with {image!r} and {label!r}; "
        f"got {found}. Pass its keys as image=... and label=...."
    )


def _label(label: Any, i: int) -> int | str:
    if isinstance(label, str):
        return label
    if isinstance(label, (Tensor, np.ndarray, np.generic)) and len(np.ravel(label)) == 1:
        label = label.item()
    if isinstance(label, int):
        return int(label)
    raise TypeError(f"from_dataset: the label of example {i} must be an integer or a string; got {label!r}.")


def _opened(picture: Any, i: int) -> Any:
    """The picture as a Pillow image."""
    from PIL import Image

    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, Tensor):
        picture = picture.detach().cpu()
        picture = (picture.permute(1, 2, 0) if picture.ndim == 3 else picture).numpy()
    if not isinstance(picture, np.ndarray) or picture.ndim not in (2, 3):
        raise TypeError(
            f"from_dataset: the image of example {i} must be a Pillow image, an array or a tensor; got "
            f"{type(picture).__name__}{getattr(picture, 'shape', '')}."
        )
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[..., 0]
    if picture.ndim == 3 and picture.shape[2] not in (3, 4):
        raise TypeError(
            f"from_dataset: the image of example {i} must have 1, 3 or 4 channels, last in an array and first in a "
            f"tensor; got (height, width, channels) = {picture.shape}."
        )
    if np.issubdtype(picture.dtype, np.floating):
        if not (picture.min() >= 0 and picture.max() <= 1):
            raise TypeError(
                f"from_dataset: floating-point images must have values in [0, 1]; example {i} has values in "
                f"[{picture.min():g}, {picture.max():g}]. Do not normalise the images."
            )
        picture = (picture * 255).round().astype(np.uint8)
    if picture.dtype != np.uint8:
        raise TypeError(f"from_dataset: images must be uint8 or floating-point; example {i} is {picture.dtype}.")
    return Image.fromarray(picture)


def _names(dataset: Any, label: str) -> Sequence[str]:
    """The names of the classes, where labels are integers."""
    features = getattr(dataset, "features", None)
    if isinstance(features, dict) and label in features:
        return getattr(features[label], "names", None) or []
    return [str(name) for name in getattr(dataset, "classes", None) or []]

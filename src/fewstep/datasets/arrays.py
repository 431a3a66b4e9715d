"""Data sets from arrays: features, token ids, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.datasets.labelled_images import LabelledImages


def from_arrays(x: Any, y: Any, classes: Sequence[str] | None = None) -> LabelledImages:
    """Make a data set from an array of inputs and an array of labels; values are not scaled.

    Args:
        x: the inputs, ``[examples, ...]``, a tensor or a NumPy array of floating-point numbers or integers, such as
            token ids. uint8 is converted to int64; otherwise it would be scaled to [0, 1] like the pixels of an image.
        y: the label of each example, ``[examples]``: integers or strings, as a tensor, an array or a list.
        classes: the names of the classes in the order of the sorted labels; the labels themselves if not given.

    Returns:
        The examples, sorted by class.

    Raises:
        ValueError: the lengths differ, there are no examples, or the labels are neither integers nor strings.

    Examples:
        >>> tokens = from_arrays(torch.arange(12).view(4, 3), ["b", "a", "b", "a"])
        >>> tokens.classes, tokens.images[0].tolist()
        (['a', 'b'], [3, 4, 5])
    """
    array = x if isinstance(x, Tensor) else np.asarray(x)
    if not isinstance(array, Tensor) and array.dtype.kind not in "biuf":
        raise TypeError(f"from_arrays: x must hold numbers; got {type(x).__name__} of {array.dtype}.")
    if classes is not None and (not isinstance(classes, Sequence) or isinstance(classes, str)):
        raise TypeError(f"from_arrays: classes must be a list of names; got {classes!r}.")
    examples = torch.as_tensor(array)
    labels = y.cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if labels.ndim != 1 or examples.ndim < 1 or len(labels) != len(examples) or len(labels) == 0:
        raise ValueError(
            "from_arrays: x must be [examples, ...] and y [examples], with at least one example; got "
            f"{tuple(examples.shape)} and {labels.shape}."
        )
    if not (np.issubdtype(labels.dtype, np.integer) or labels.dtype.kind in "US"):
        raise ValueError(f"from_arrays: labels must be integers or strings; got an array of {labels.dtype}.")
    names, first, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if classes is not None and len(classes) != len(names):
        raise ValueError(f"from_arrays: {len(names)} labels need as many names; got {len(classes)}: {list(classes)}.")
    order = torch.from_numpy(np.argsort(first, kind="stable"))
    ordered = examples[order.to(examples.device)]
    starts = torch.from_numpy(np.concatenate([[0], counts.cumsum()]))
    return LabelledImages(
        ordered.long() if ordered.dtype == torch.uint8 else ordered,
        starts,
        [str(name) for name in (names if classes is None else classes)],
    )

"""Tasks from a list of (x, y), one pair per task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.arguments import check_draw, check_whole
from fewstep.tasks.batch import Batch, Task


class TaskList:
    """Tasks from a list of (x, y), one pair per task, whose examples are divided anew at every draw.

    ``shots`` random examples of a task are its support set, ``queries`` other ones its query set. Tasks may have
    different numbers of examples: shorter query sets are then padded with examples of weight 0, as in
    [`Task.stack`][fewstep.tasks.Task.stack], which the loss must honour as [`mse`][fewstep.mse] does.

    Args:
        data: an iterable with one (x, y) per task: tensors, NumPy arrays or data frames, ``[examples, ...]`` each.
            Floating-point arrays become tensors of PyTorch's default dtype; tensors and integers keep their dtype.
        shots: support examples per task, K.
        queries: query examples per task; all that are left if not given.
        stacked: whether ``sample`` returns one meta-batch. ``False`` returns a list of tasks, which are taken one by
            one and need no padding, for losses and layers (batch norm) that cannot ignore it.

    Raises:
        TypeError: an element is not a pair, or a tensor has no axis of examples.
        ValueError: the list is empty, x and y of a task differ in length, or a task has too few examples.

    Examples:
        >>> data = [(torch.rand(size, 4), torch.rand(size, 1)) for size in (12, 20, 35)]
        >>> tasks = TaskList(data, shots=8).sample(3)
        >>> tasks.support.x.shape, tasks.query.weight.sum(1).sort().values
        (torch.Size([3, 8, 4]), tensor([ 4., 12., 27.]))
    """

    def __init__(
        self, data: Iterable[tuple[Any, Any]], shots: int, queries: int | None = None, stacked: bool = True
    ) -> None:
        check_whole("TaskList", shots=shots, **({} if queries is None else {"queries": queries}))
        self.data = [_pair(index, element) for index, element in enumerate(_listed(data))]
        if not self.data:
            raise ValueError("TaskList: the list of tasks is empty.")
        self.shots, self.queries, self.stacked = shots, queries, stacked
        if stacked:
            _check_same_shapes(self.data)
        needed = shots + (queries or 1)
        for index, (x, _) in enumerate(self.data):
            if len(x) < needed:
                asked = f"{shots} shots and {queries} queries" if queries else f"{shots} shots and at least one query"
                raise ValueError(f"TaskList: {asked} need {needed} examples; task {index} has {len(x)}.")

    def __len__(self) -> int:
        return len(self.data)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Any:
        """Draws ``n`` tasks: different ones while ``n`` is at most the length of the list, else with replacement.

        Returns:
            One [`Task`][fewstep.tasks.Task] with a leading task axis: support ``[n, shots, ...]``, query
            ``[n, queries, ...]``; a list of tasks without it if not ``stacked``.
        """
        check_draw("TaskList.sample", n, generator)
        if n <= len(self.data):
            chosen = torch.randperm(len(self.data), generator=generator)[:n]
        else:
            chosen = torch.randint(len(self.data), (n,), generator=generator)
        tasks = [self._divided(*self.data[int(i)], generator) for i in chosen]
        return Task.stack(tasks) if self.stacked else tasks

    def _divided(self, x: Tensor, y: Tensor, generator: torch.Generator | None) -> Task:
        order = torch.randperm(len(x), generator=generator).to(x.device)
        end = None if self.queries is None else self.shots + self.queries
        support, query = order[: self.shots], order[self.shots : end]
        return Task(Batch(x[support], y[support]), Batch(x[query], y[query]))


def _listed(data: Any) -> Iterable[Any]:
    """The data, unless iterating over them would not give tasks: the keys of a mapping, the columns of a frame."""
    if isinstance(data, (str, bytes, Task, Batch, Tensor)) or hasattr(data, "keys") or not isinstance(data, Iterable):
        raise TypeError(
            f"TaskList: the data must be a list with one pair (x, y) per task; got {type(data).__name__}. From a data "
            'frame: [(group[["a", "b"]], group["target"]) for _, group in frame.groupby("task")].'
        )
    return data


def _pair(index: int, element: Any) -> tuple[Tensor, Tensor]:
    if isinstance(element, Task):
        raise TypeError(
            f"TaskList divides examples into support and query sets; task {index} is a Task, which has both. Pass a "
            "pair (x, y), or use the list of tasks itself: learner.meta_loss(tasks), learner.score(tasks)."
        )
    if not isinstance(element, (tuple, list)) or len(element) != 2:
        raise TypeError(f"TaskList: task {index} must be a pair (x, y); got {type(element).__name__}.")
    x, y = (_tensor(value) for value in element)
    if x.ndim == 0 or y.ndim == 0:
        raise TypeError(f"TaskList: x and y of task {index} must be [examples, ...]; got a scalar.")
    if len(x) != len(y):
        raise ValueError(f"TaskList: task {index} has {len(x)} examples in x and {len(y)} in y.")
    return x, y


def _check_same_shapes(data: list[tuple[Tensor, Tensor]]) -> None:
    """Raise if the examples of the tasks differ in shape."""
    for index, pair in enumerate(data):
        for name, part, first in zip("xy", pair, data[0], strict=True):
            if part.shape[1:] != first.shape[1:]:
                raise ValueError(
                    f"TaskList: the examples of all tasks must have one shape; {name} of task 0 has "
                    f"{tuple(first.shape[1:])}, {name} of task {index} has {tuple(part.shape[1:])}. Tasks of different "
                    "shapes are not stacked: pass stacked=False."
                )


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    array = np.array(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"TaskList: x and y must hold numbers; got {array.dtype}. Convert or drop the other columns.")
    tensor = torch.as_tensor(array)
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor

"""Tasks: a support set to adapt to, and a query set to evaluate on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node

from fewstep.tasks.trees import mapped, split, tensors


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples of one task, or of many tasks with a leading task axis.

    Args:
        x: inputs, ``[examples, ...]`` or ``[tasks, examples, ...]``: a tensor, or a dictionary or other container of
            tensors. Strings, numbers and ``None`` in it are passed on unchanged.
        y: targets, with the same leading axes as ``x``, or ``None``.
        weight: the weight of each example in the loss, ``[examples]`` or ``[tasks, examples]``; 0 marks padding.
            ``None`` gives all examples the same weight. The losses of this library use the weights; your own loss must
            do so too if tasks are padded.

    Examples:
        >>> import torch
        >>> len(Batch(torch.zeros(5, 1), torch.zeros(5, 1)))
        5
    """

    x: Any
    y: Any = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return _leading_size(self)

    def __getitem__(self, index: Any) -> Batch:
        return mapped(lambda tensor: tensor[index], self)

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """Move the batch to another device or dtype.

        Args:
            *args: as for ``torch.Tensor.to``. Integer tensors (labels) keep their dtype.
            **kwargs: as for ``torch.Tensor.to``.

        Returns:
            A new batch.
        """
        return _to(self, *args, **kwargs)


@dataclass(frozen=True, eq=False)
class Task:
    """A support set to adapt to, and a query set to evaluate on (MAML, section 2.1).

    A meta-batch is one ``Task`` whose tensors have a leading task axis: ``len(tasks)`` is the number of tasks, and
    ``tasks[i]`` the i-th task. Tasks that cannot be stacked, such as graphs of different sizes, are passed as a list.

    Args:
        support: usually a [`Batch`][fewstep.tasks.Batch]; any container of tensors.
        query: likewise.

    Examples:
        >>> import torch
        >>> support, query = Batch(torch.rand(5, 1), torch.rand(5, 1)), Batch(torch.rand(9, 1), torch.rand(9, 1))
        >>> tasks = Task.stack([Task(support, query), Task(support, query)])
        >>> len(tasks), tasks[0].query.x.shape
        (2, torch.Size([9, 1]))
    """

    support: Any
    query: Any

    @property
    def is_plain(self) -> bool:
        """Whether both sets are batches of single tensors, so that nothing in the task can be modified."""
        sets = (self.support, self.query)
        return all(type(s) is Batch and isinstance(s.x, Tensor) and isinstance(s.y, Tensor) for s in sets)

    def __reduce__(self) -> tuple[Any, ...]:
        return Task, (self.support, self.query)  # without cached attributes

    def __len__(self) -> int:
        return _leading_size(self)

    def __getitem__(self, index: Any) -> Task:
        return mapped(lambda tensor: tensor[index], self)

    def to(self, *args: Any, **kwargs: Any) -> Task:
        """Move the task to another device or dtype.

        Args:
            *args: as for ``torch.Tensor.to``. Integer tensors (labels) keep their dtype.
            **kwargs: as for ``torch.Tensor.to``.

        Returns:
            A new task.
        """
        return _to(self, *args, **kwargs)

    @staticmethod
    def stack(tasks: Sequence[Task]) -> Task:
        """Make a meta-batch of single tasks, which may have different numbers of examples.

        Shorter sets are padded: their first example is repeated with weight 0. A loss that uses ``Batch.weight`` gives
        the same value and gradient as without padding.

        Args:
            tasks: one or more tasks without a task axis.

        Returns:
            One task whose tensors are ``[tasks, examples, ...]``.

        Raises:
            ValueError: there is no task, a set is empty, or the sets differ in more than the number of examples.

        Examples:
            >>> import torch
            >>> def task(shots):
            ...     batch = Batch(torch.rand(shots, 1), torch.rand(shots, 1))
            ...     return Task(batch, batch)
            >>> Task.stack([task(2), task(7)]).support.weight.sum(1)
            tensor([2., 7.])
        """
        if not isinstance(tasks, Sequence) or not all(isinstance(task, Task) for task in tasks):
            raise TypeError(f"Task.stack takes a list of fewstep.Task; got {_kinds(tasks)}.")
        if not tasks:
            raise ValueError("Task.stack needs at least one task; got an empty sequence.")
        return Task(_stack([t.support for t in tasks], "support"), _stack([t.query for t in tasks], "query"))


def cast_like(tasks: Any, parameters: Tensor | Iterable[Tensor]) -> Any:
    """Move tasks to the device and, if needed, the precision of the parameters.

    Floating-point tensors are converted only if no parameter has their precision: to that of the first parameter that
    requires a gradient. Real tensors stay real and complex ones complex.

    Args:
        tasks: a meta-batch or a list of tasks.
        parameters: one or more tensors.

    Returns:
        New tasks, or ``tasks`` if there is nothing to convert.
    """
    kept = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    dtypes = {p.dtype.to_real() for p in kept if p.is_floating_point() or p.is_complex()}
    if not kept:
        return tasks
    first = next((p for p in kept if p.requires_grad), kept[0])

    def moved(tensor: Tensor) -> Tensor:
        dtype = tensor.dtype
        if dtypes and (tensor.is_floating_point() or tensor.is_complex()) and dtype.to_real() not in dtypes:
            dtype = first.dtype.to_complex() if tensor.is_complex() else first.dtype.to_real()
        return tensor.to(first.device, dtype)

    found, rebuild = split(tasks)
    new = [moved(tensor) for tensor in found]
    return tasks if all(a is b for a, b in zip(found, new, strict=True)) else rebuild(new)


def _stack(batches: Sequence[Any], name: str) -> Any:
    if not all(isinstance(batch, Batch) for batch in batches):
        return _together(batches, lambda values: torch.stack(list(values)))
    sizes = [len(batch) for batch in batches]
    if min(sizes) == 0:
        raise ValueError(f"Task.stack: {name} set {sizes.index(0)} has no examples; each set needs at least one.")
    weights = None
    if len(set(sizes)) > 1 or any(batch.weight is not None for batch in batches):
        weights = [_pad(_weight(batch), max(sizes), repeat=False) for batch in batches]

    def stacked(values: Sequence[Tensor]) -> Tensor:
        padded = [_pad(tensor, max(sizes)) for tensor in values]
        if len({tuple(tensor.shape) for tensor in padded}) > 1:
            raise ValueError(
                f"Task.stack: examples of the {name} sets differ in shape: "
                f"{sorted({tuple(tensor.shape[1:]) for tensor in padded})}; only the number of examples may differ "
                "between stacked tasks. Pass a list of tasks instead; these are evaluated one after the other."
            )
        return torch.stack(padded)

    x, y = (_together([getattr(batch, part) for batch in batches], stacked) for part in ("x", "y"))
    return Batch(x, y, None if weights is None else torch.stack(weights))


def _together(trees: Sequence[Any], join: Callable[[Sequence[Tensor]], Tensor]) -> Any:
    """Join the tensors of several trees, place by place; everything else must be the same in all of them."""
    counts = {len(tensors(tree)) for tree in trees}
    if len(counts) > 1:
        raise ValueError(f"Task.stack: the tasks hold different numbers of tensors, {sorted(counts)}.")
    return mapped(lambda *values: join(values), *trees)


def _kinds(tasks: Any) -> str:
    name = type(tasks).__name__
    inner = sorted({type(task).__name__ for task in tasks}) if isinstance(tasks, Sequence) else []
    return f"a {name} of {', '.join(inner)}" if inner else f"a {name}"


def _weight(batch: Batch) -> Tensor:
    if batch.weight is not None:
        return batch.weight
    first = tensors(batch.x)[0]
    dtype = first.dtype if first.is_floating_point() else torch.get_default_dtype()
    return torch.ones(len(batch), dtype=dtype, device=first.device)


def _pad(tensor: Tensor, size: int, repeat: bool = True) -> Tensor:
    missing = size - len(tensor)
    filler = tensor[:1].expand(missing, *tensor.shape[1:])
    return torch.cat([tensor, filler if repeat else torch.zeros_like(filler)])


def _leading_size(tree: Any) -> int:
    found = tensors(tree)
    if not found or found[0].ndim == 0:
        raise TypeError(f"{type(tree).__name__} has no leading axis: its first tensor is missing or a scalar.")
    return int(found[0].shape[0])


def _to(tree: Any, *args: Any, **kwargs: Any) -> Any:
    target = torch.empty(0).to(*args, **kwargs)

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(*args, **kwargs) if tensor.is_floating_point() else tensor.to(target.device)

    return mapped(move, tree)


def _flatten_batch(batch: Batch) -> tuple[list[Any], bool]:
    weighted = batch.weight is not None
    return [batch.x, batch.y] + ([batch.weight] if weighted else []), weighted


register_pytree_node(Batch, _flatten_batch, lambda children, weighted: Batch(*children))
register_pytree_node(Task, lambda task: ([task.support, task.query], None), lambda children, _: Task(*children))

"""What a task is: a support set to adapt on and a query set to be judged on."""

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
            tensors, in which strings, numbers and ``None`` may lie too.
        y: targets, with the same leading axes as ``x``; ``None`` if there are none.
        weight: how much each example counts, ``[examples]`` or ``[tasks, examples]``; 0 marks padding. ``None``
            means that all count the same. A loss must honour it, as :func:`fewstep.mse` and its siblings do.

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
        """The same batch on another device or in another dtype; integer tensors (labels) keep their dtype."""
        return _to(self, *args, **kwargs)


@dataclass(frozen=True, eq=False)
class Task:
    """A support set to adapt on and a query set to be judged on (MAML, section 2.1).

    A meta-batch is one ``Task`` whose tensors have a leading task axis: ``len(tasks)`` counts the tasks and
    ``tasks[i]`` is the i-th. Support and query are usually :class:`Batch`, but any container of tensors will do. Tasks
    that cannot be stacked, such as graphs of different sizes, are passed as a list of tasks instead.
    """

    support: Any
    query: Any

    @property
    def is_plain(self) -> bool:
        """Whether nothing in it can be exchanged: both sets are batches of single tensors."""
        sets = (self.support, self.query)
        return all(type(s) is Batch and isinstance(s.x, Tensor) and isinstance(s.y, Tensor) for s in sets)

    def __reduce__(self) -> tuple[Any, ...]:
        return Task, (self.support, self.query)  # copied or pickled without what is kept beside them

    def __len__(self) -> int:
        return _leading_size(self)

    def __getitem__(self, index: Any) -> Task:
        return mapped(lambda tensor: tensor[index], self)

    def to(self, *args: Any, **kwargs: Any) -> Task:
        """The same task on another device or in another dtype; integer tensors (labels) keep their dtype."""
        return _to(self, *args, **kwargs)

    @staticmethod
    def stack(tasks: Sequence[Task]) -> Task:
        """One meta-batch from single tasks, which may differ in their numbers of examples.

        Shorter sets are padded by repeating their first example, with weight 0, so that a loss which honours
        ``Batch.weight`` gives the same value and gradient as without padding.

        >>> import torch
        >>> def task(shots):
        ...     batch = Batch(torch.rand(shots, 1), torch.rand(shots, 1))
        ...     return Task(batch, batch)
        >>> Task.stack([task(2), task(7)]).support.weight.sum(1)
        tensor([2., 7.])
        """
        if not tasks:
            raise ValueError("Task.stack needs at least one task; got an empty sequence.")
        return Task(_stack([t.support for t in tasks], "support"), _stack([t.query for t in tasks], "query"))


def cast_like(tasks: Any, parameters: Tensor | Iterable[Tensor]) -> Any:
    """Tasks on the device and in a precision of the parameters; themselves if they are so.

    Floating-point tensors are converted only if no parameter has their precision: to that of the first parameter that
    requires a gradient. Real tensors stay real and complex ones complex.
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
        raise ValueError(f"Task.stack: {name} set {sizes.index(0)} has no examples; each needs at least one.")
    weights = None
    if len(set(sizes)) > 1 or any(batch.weight is not None for batch in batches):
        weights = [_pad(_weight(batch), max(sizes), repeat=False) for batch in batches]

    def stacked(values: Sequence[Tensor]) -> Tensor:
        padded = [_pad(tensor, max(sizes)) for tensor in values]
        if len({tuple(tensor.shape) for tensor in padded}) > 1:
            raise ValueError(
                f"Task.stack: examples of the {name} sets differ in shape: "
                f"{sorted({tuple(tensor.shape[1:]) for tensor in padded})}; only the number of examples may differ "
                "between stacked tasks. Pass a list of tasks instead, which are taken one by one."
            )
        return torch.stack(padded)

    x, y = (_together([getattr(batch, part) for batch in batches], stacked) for part in ("x", "y"))
    return Batch(x, y, None if weights is None else torch.stack(weights))


def _together(trees: Sequence[Any], join: Callable[[Sequence[Tensor]], Tensor]) -> Any:
    """One tree of the tensors of several; what else these hold must be the same in all of them."""
    counts = {len(tensors(tree)) for tree in trees}
    if len(counts) > 1:
        raise ValueError(f"Task.stack: the tasks hold different numbers of tensors, {sorted(counts)}.")
    return mapped(lambda *values: join(values), *trees)


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

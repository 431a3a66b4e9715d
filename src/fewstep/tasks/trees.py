"""Trees of data: tensors in tuples, dictionaries, other mappings and data classes, together with other objects.

Only tensors are moved, indexed and stacked. Strings, numbers, ``None`` and objects that are not containers stay as they
are.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections import UserDict
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import register_pytree_node, tree_flatten, tree_unflatten

Rebuild = Callable[[list[Any]], Any]


def split(tree: Any) -> tuple[list[Tensor], Rebuild]:
    """The tensors of a tree, and a function that rebuilds the tree with other tensors in their places."""
    leaves, spec = _flatten(tree)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    return [leaves[place] for place in places], functools.partial(_rebuilt, leaves, places, spec)


def tensors(tree: Any) -> list[Tensor]:
    """The tensors of a tree.

    Examples:
        >>> import torch
        >>> from collections import UserDict
        >>> tensors(UserDict(ids=torch.zeros(2), name="a"))
        [tensor([0., 0.])]
    """
    return [leaf for leaf in _flatten(tree)[0] if isinstance(leaf, Tensor)]


def leaves_of(tree: Any) -> list[Any]:
    """All leaves of a tree, tensors and other objects."""
    return _flatten(tree)[0]


def constants(tree: Any) -> tuple[Any, ...]:
    """The leaves of a tree that are not tensors: strings and numbers, and the ``id`` of other objects."""
    others = (leaf for leaf in _flatten(tree)[0] if not isinstance(leaf, Tensor))
    return tuple([leaf if isinstance(leaf, (str, bool, int, float, type(None))) else id(leaf) for leaf in others])


def mapped(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply a function to every tensor of a tree, or to the tensors at the same place of several trees."""
    found, rebuild = split(tree)
    spec, fixed = (_flatten(tree)[1], constants(tree)) if others else (None, None)
    for other in others:
        if _flatten(other)[1] != spec or constants(other) != fixed:
            raise ValueError(
                f"The containers, or the values in them that are not tensors, differ: {_described(tree)} against "
                f"{_described(other)}. Pass such tasks as a list instead of stacking them."
            )
    return rebuild([function(*values) for values in zip(found, *map(tensors, others), strict=True)])


def signature(tree: Any) -> tuple[Any, ...]:
    """The structure of a tree, with the shapes, dtypes and devices of its tensors."""
    leaves, spec = _flatten(tree)
    return spec, tuple((t.shape, t.dtype, t.device) if isinstance(t, Tensor) else type(t) for t in leaves)


def _described(tree: Any) -> str:
    return repr(mapped(lambda tensor: tensor.new_empty(0), tree)).replace("tensor([])", "tensor")[:200]


def _flatten(tree: Any) -> tuple[list[Any], Any]:
    kept = getattr(tree, "kept_flat", None)  # immutable trees are flattened once
    if kept is not None:
        return kept[0], kept[1]
    leaves, spec = tree_flatten(tree)
    if getattr(tree, "is_plain", False):
        object.__setattr__(tree, "kept_flat", (leaves, spec))
    strange = {type(leaf) for leaf in leaves if not isinstance(leaf, Tensor) and _is_container(leaf)}
    if not strange:
        return leaves, spec
    for kind in strange:
        _register(kind)
    return _flatten(tree)


def _is_container(leaf: Any) -> bool:
    return isinstance(leaf, Mapping) or (dataclasses.is_dataclass(leaf) and not isinstance(leaf, type))


def _register(kind: type) -> None:
    """Register a type of mapping or data class with PyTorch's pytrees, and so with ``torch.vmap``."""
    if issubclass(kind, Mapping):
        register_pytree_node(kind, _flatten_mapping, _unflatten_mapping)
    else:
        register_pytree_node(kind, _flatten_dataclass, _unflatten_dataclass)


class _Like:
    """An example object to rebuild others from; equal to those of the same class, since tree contexts are compared."""

    def __init__(self, example: Any) -> None:
        self.example = example

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Like) and type(other.example) is type(self.example)

    def __hash__(self) -> int:
        return hash(type(self.example))


def _flatten_mapping(mapping: Mapping[Any, Any]) -> tuple[list[Any], Any]:
    return list(mapping.values()), (tuple(mapping), _Like(mapping))


def _unflatten_mapping(values: Any, context: Any) -> Any:
    keys, like = context
    items = dict(zip(keys, values, strict=True))
    if isinstance(like.example, UserDict):
        made = copy.copy(like.example)
        made.data = items
        return made
    try:
        return type(like.example)(items)
    except TypeError as error:
        raise TypeError(
            f"A {type(like.example).__name__} cannot be made from a dictionary ({error}). Pass a dict of its tensors."
        ) from error


def _flatten_dataclass(value: Any) -> tuple[list[Any], Any]:
    names = tuple(field.name for field in dataclasses.fields(value))
    return [getattr(value, name) for name in names], (names, _Like(value))


def _unflatten_dataclass(values: Any, context: Any) -> Any:
    names, like = context
    made = copy.copy(like.example)
    for name, value in zip(names, values, strict=True):
        object.__setattr__(made, name, value)
    return made


def _rebuilt(leaves: list[Any], places: list[int], spec: Any, found: list[Tensor]) -> Any:
    merged = list(leaves)
    for place, value in zip(places, found, strict=True):
        merged[place] = value
    return tree_unflatten(merged, spec)

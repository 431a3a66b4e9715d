"""Records of tensors that can be stacked, indexed and passed through ``torch.vmap``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar

from torch.utils._pytree import register_pytree_node, tree_map

Own = TypeVar("Own", bound="Record")


STATIC = {"static": True}
"""Metadata of a field that is not a tensor: it is part of the record's structure."""


class Record:
    """The base class of dataclasses whose fields are tensors or records: a pytree that can be indexed.

    ``record[index]`` indexes every tensor. A field of another type needs ``field(metadata={"static": True})``; it is
    part of the structure of the pytree.

    Examples:
        >>> import torch
        >>> @dataclasses.dataclass(frozen=True)
        ... class Pair(Record):
        ...     a: torch.Tensor
        ...     b: torch.Tensor
        >>> Pair(torch.arange(3), torch.zeros(3))[0].a
        tensor(0)
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)

        def names(is_static: bool) -> list[str]:
            fields: Any = dataclasses.fields(cls)  # type: ignore[arg-type]
            return [field.name for field in fields if field.metadata.get("static", False) == is_static]

        def flatten(record: Any) -> tuple[list[Any], tuple[Any, ...]]:
            return (
                [getattr(record, name) for name in names(False)],
                tuple(getattr(record, name) for name in names(True)),
            )

        def unflatten(tensors: Iterable[Any], context: tuple[Any, ...]) -> Any:
            return cls(**dict(zip(names(False), tensors, strict=True)), **dict(zip(names(True), context, strict=True)))

        register_pytree_node(cls, flatten, unflatten)

    def __getitem__(self: Own, index: Any) -> Own:
        part: Own = tree_map(lambda tensor: tensor[index], self)
        return part

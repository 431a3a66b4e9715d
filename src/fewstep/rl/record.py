"""Records of tensors that stack, slice and go through ``torch.vmap`` as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar

from torch.utils._pytree import register_pytree_node, tree_map

Own = TypeVar("Own", bound="Record")


class Record:
    """A dataclass all of whose fields are tensors (or records): a pytree, of which an index takes that part."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)

        def flatten(record: Any) -> tuple[list[Any], None]:
            return [getattr(record, field.name) for field in dataclasses.fields(record)], None

        def unflatten(tensors: Iterable[Any], _: None) -> Any:
            return cls(*tensors)

        register_pytree_node(cls, flatten, unflatten)

    def __getitem__(self: Own, index: Any) -> Own:
        part: Own = tree_map(lambda tensor: tensor[index], self)
        return part

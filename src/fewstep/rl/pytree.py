"""Records of tensors that stack, slice and go through ``torch.vmap`` as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar

from torch.utils._pytree import register_pytree_node

Record = TypeVar("Record")


def pytree(record: type[Record]) -> type[Record]:
    """Registers a dataclass all of whose fields are tensors as a pytree; a decorator."""
    names = [field.name for field in dataclasses.fields(record)]  # type: ignore[arg-type]

    def flatten(value: Any) -> tuple[list[Any], None]:
        return [getattr(value, name) for name in names], None

    def unflatten(tensors: Iterable[Any], _: None) -> Record:
        return record(*tensors)

    register_pytree_node(record, flatten, unflatten)
    return record

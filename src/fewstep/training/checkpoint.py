"""Checkpoints: one safetensors file, written completely or not at all, and loaded without executing code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes nested dictionaries, lists and tuples of tensors, numbers, strings and `None`.

    The file appears under its name only when it is complete and on the disk. Until then the old file stays.

    Args:
        path: the file.
        state: its content.

    Raises:
        TypeError: the state holds another kind of value.
    """
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_describe(state, "", tensors))
    write_whole(path, save(tensors, metadata={"structure": structure}))


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file completely, to the disk, or not at all. An old file stays until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what [`save_checkpoint`][fewstep.training.save_checkpoint] wrote, onto the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or is not a checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            structure = (file.metadata() or {}).get("structure")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is damaged, or is not a checkpoint of fewstep ({error}). Use another checkpoint."
        ) from None
    if structure is None:
        raise ValueError(f"{path} is a safetensors file, but not a checkpoint of fewstep: its structure is missing.")
    state: dict[str, Any] = _restore(json.loads(structure), tensors)
    return state


def _describe(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; its tensors go into `tensors`, named by their place."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _describe(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_describe(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(
        f"A checkpoint holds tensors, numbers, strings and None in dictionaries, lists and tuples; "
        f"{name or 'the state'} is a {type(value).__name__}."
    )


def _restore(description: Any, tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = description.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _restore(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_restore(item, tensors) for item in content]
        return items if kind == "list" else tuple(items)
    return content

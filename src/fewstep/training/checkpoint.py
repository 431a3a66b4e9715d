"""Checkpoints: one safetensors file, written completely or not at all, and loaded without executing code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

TEMPORARY = ".tmp"
"""The ending of files that are being written."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes nested dictionaries, lists and tuples of tensors, numbers, strings and `None`.

    The file appears under its name only when it is complete and on the disk. Until then the old file stays. It holds a
    checksum of its tensors and their structure.

    Args:
        path: the file.
        state: its content.

    Raises:
        TypeError: the state holds another kind of value.
        OSError: the file cannot be written; the message names it.
    """
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_describe(state, "", tensors))
    metadata = {"structure": structure, "checksum": _checksum(structure, tensors)}
    write_whole(path, save(tensors, metadata=metadata))


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file completely, to the disk, or not at all. An old file stays until then.

    Raises:
        OSError: the file cannot be written; the message names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:  # a full disk: the system does not name the file
            reason = error.strerror or str(error)
            raise OSError(error.errno, f"{reason}; the file was not changed", str(path)) from error
        raise


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what [`save_checkpoint`][fewstep.training.save_checkpoint] wrote, onto the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, does not have its checksum, or is not a checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is damaged, or is not a checkpoint of fewstep ({error}). Use another checkpoint."
        ) from None
    structure, checksum = metadata.get("structure"), metadata.get("checksum")
    if structure is None:
        raise ValueError(f"{path} is a safetensors file, but not a checkpoint of fewstep: its structure is missing.")
    if checksum not in (None, _checksum(structure, tensors)):  # older checkpoints have none
        raise ValueError(f"{path} is damaged: its content does not have its checksum. Use another checkpoint.")
    state: dict[str, Any] = _restore(json.loads(structure), tensors)
    return state


def _checksum(structure: str, tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of the structure, and of the name, type, shape and bytes of each tensor."""
    found = hashlib.sha256(structure.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


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

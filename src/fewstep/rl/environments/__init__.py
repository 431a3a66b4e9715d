"""Environments whose copies each have a task. They need the extra: ``pip install "fewstep[rl]"``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewstep.rl.environments.base import TaskEnvironment
    from fewstep.rl.environments.point_navigation import PointNavigation

_HOMES = {
    "PointNavigation": "point_navigation",
    "TaskEnvironment": "base",
}

__all__ = ["PointNavigation", "TaskEnvironment"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fewstep.rl.environments' has no attribute {name!r}")
    value = getattr(import_module(f"fewstep.rl.environments.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

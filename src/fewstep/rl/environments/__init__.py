"""Vector environments with one task per copy. They need the extra: ``pip install "fewstep[rl]"``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewstep.rl.environments.base import TaskEnvironment
    from fewstep.rl.environments.gymnasium_tasks import EnvironmentFailed, GymnasiumTasks
    from fewstep.rl.environments.meta_world_tasks import meta_world
    from fewstep.rl.environments.point_navigation import PointNavigation, paper_goals
    from fewstep.rl.environments.running_robots import (
        AntDirection,
        AntVelocity,
        HalfCheetahDirection,
        HalfCheetahVelocity,
    )
    from fewstep.rl.environments.single import SingleTask

__all__ = [
    "AntDirection",
    "AntVelocity",
    "EnvironmentFailed",
    "GymnasiumTasks",
    "HalfCheetahDirection",
    "HalfCheetahVelocity",
    "PointNavigation",
    "SingleTask",
    "TaskEnvironment",
    "meta_world",
    "paper_goals",
]

# Imported on first use: Gymnasium and MuJoCo are optional.
_HOMES = {
    "base": ("TaskEnvironment",),
    "gymnasium_tasks": ("EnvironmentFailed", "GymnasiumTasks"),
    "meta_world_tasks": ("meta_world",),
    "point_navigation": ("PointNavigation", "paper_goals"),
    "running_robots": ("AntDirection", "AntVelocity", "HalfCheetahDirection", "HalfCheetahVelocity"),
    "single": ("SingleTask",),
}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'fewstep.rl.environments' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"fewstep.rl.environments.{home}"), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{name} needs {error.name}, which is not installed: pip install "fewstep[rl]", or in a clone of the '
            'repository pip install -e ".[rl]".',
            name=error.name,
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""The worlds of reinforcement learning and their options."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fewstep import rl
from fewstep.experiments.experiment import Part


class World(Part):
    """An environment and the kind of its tasks: a goal in the plane, a direction or a velocity."""

    table: ClassVar[str]
    """The name of the table of its rows."""
    title: ClassVar[str]
    """Its title in figures."""
    figure: ClassVar[str] = "Figure 5"
    """Its figure in the MAML paper."""

    @abstractmethod
    def environment(self, copies: int, horizon: int, observe_task: bool, **options: Any) -> Any:
        """The environment with a number of copies."""

    def tested_on(self, goals: str | None) -> World:
        """The world with the chosen test goals; ``None`` keeps them."""
        if goals == "paper":
            raise ValueError(f"--goals paper applies only to 2D navigation; got {self.name}. Use --goals drawn.")
        return self

    def goals_of_the_paper(self) -> Tensor | None:
        """The fixed test tasks; ``None`` if they are drawn as in training."""
        return None


@dataclass(frozen=True)
class Navigation(World):
    """A point that moves to a goal in the plane."""

    name, table, title = "navigation", "navigation", "2D navigation"
    figure: ClassVar[str] = "Figure 4"

    test_goals: Literal["drawn", "paper"] = "drawn"
    """Test goals: drawn as in training, or the 40 goals of the paper's authors."""

    def environment(self, copies: int, horizon: int, observe_task: bool, **options: Any) -> Any:
        return rl.environments.PointNavigation(copies, observe_task=observe_task, horizon=horizon, **options)

    def tested_on(self, goals: Any) -> Navigation:
        return self if goals is None else replace(self, test_goals=goals)

    def goals_of_the_paper(self) -> Tensor | None:
        return rl.environments.paper_goals() if self.test_goals == "paper" else None


@dataclass(frozen=True)
class Robot(World):
    """A robot that runs in a direction or at a velocity."""

    kind: ClassVar[str]
    """The name of its class in `fewstep.rl.environments`."""

    rewards: Literal["paper", "gymnasium"] = "paper"
    """Convention of the reward terms other than the task's."""

    def environment(self, copies: int, horizon: int, observe_task: bool, **options: Any) -> Any:
        """The environment with a number of copies, and as many threads as PyTorch has."""
        kind, threads = getattr(rl.environments, self.kind), min(copies, torch.get_num_threads())
        settings = {"rewards": self.rewards, "horizon": horizon, "observe_task": observe_task, "threads": threads}
        return kind(copies, **settings, **options)


class CheetahDirection(Robot):
    """HalfCheetah that runs forwards or backwards."""

    name, table, title, kind = "cheetah-direction", "cheetah", "cheetah, direction", "HalfCheetahDirection"


class CheetahVelocity(Robot):
    """HalfCheetah that runs at a velocity."""

    name, table, title, kind = "cheetah-velocity", "cheetah", "cheetah, velocity", "HalfCheetahVelocity"


class AntDirection(Robot):
    """Ant that runs forwards or backwards."""

    name, table, title, kind = "ant-direction", "ant", "ant, direction", "AntDirection"


class AntVelocity(Robot):
    """Ant that runs at a velocity."""

    name, table, title, kind = "ant-velocity", "ant", "ant, velocity", "AntVelocity"

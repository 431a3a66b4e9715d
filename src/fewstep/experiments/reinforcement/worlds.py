"""The worlds of reinforcement learning, each with its own options."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fewstep import rl
from fewstep.experiments.experiment import Part


class World(Part):
    """What the tasks are of: a goal in the plane to find, a direction or a velocity to run in."""

    table: ClassVar[str]
    """The table of its rows."""
    title: ClassVar[str]
    """What figures call it."""
    figure: ClassVar[str] = "Figure 5"
    """The MAML paper's figure of it."""

    @abstractmethod
    def environment(self, copies: int, horizon: int, observe_task: bool, **options: Any) -> Any:
        """The environment, with as many threads as PyTorch has."""

    def tested_on(self, goals: str | None) -> World:
        """The world with other goals at test, if any are given."""
        if goals == "paper":
            raise ValueError(f"The paper's test goals are known of 2D navigation only; {self.name} has drawn ones.")
        return self

    def goals_of_the_paper(self) -> Tensor | None:
        """The tasks to test on, unless they are drawn as in training."""
        return None


@dataclass(frozen=True)
class Navigation(World):
    """A point that has to find a goal in the plane."""

    name, table, title = "navigation", "navigation", "2D navigation"
    figure: ClassVar[str] = "Figure 4"

    test_goals: Literal["drawn", "paper"] = "drawn"
    """Goals to test on: drawn as in training, or the 40 goals of the paper's authors."""

    def environment(self, copies: int, horizon: int, observe_task: bool, **options: Any) -> Any:
        return rl.environments.PointNavigation(copies, observe_task=observe_task, horizon=horizon, **options)

    def tested_on(self, goals: Any) -> Navigation:
        return self if goals is None else replace(self, test_goals=goals)

    def goals_of_the_paper(self) -> Tensor | None:
        return rl.environments.paper_goals() if self.test_goals == "paper" else None


@dataclass(frozen=True)
class Robot(World):
    """A robot that has to run in a direction or at a velocity."""

    kind: ClassVar[str]
    """The class of its environments in `fewstep.rl.environments`."""

    rewards: Literal["paper", "gymnasium"] = "paper"
    """Terms of the reward beside the task's: the paper's or Gymnasium's."""

    def environment(self, copies: int, horizon: int, observe_task: bool, **options: Any) -> Any:
        kind, threads = getattr(rl.environments, self.kind), min(copies, torch.get_num_threads())
        settings = {"rewards": self.rewards, "horizon": horizon, "observe_task": observe_task, "threads": threads}
        return kind(copies, **settings, **options)


class CheetahDirection(Robot):
    """A cheetah that runs forwards or backwards."""

    name, table, title, kind = "cheetah-direction", "cheetah", "cheetah, direction", "HalfCheetahDirection"


class CheetahVelocity(Robot):
    """A cheetah that runs at a velocity."""

    name, table, title, kind = "cheetah-velocity", "cheetah", "cheetah, velocity", "HalfCheetahVelocity"


class AntDirection(Robot):
    """An ant that runs forwards or backwards."""

    name, table, title, kind = "ant-direction", "ant", "ant, direction", "AntDirection"


class AntVelocity(Robot):
    """An ant that runs at a velocity."""

    name, table, title, kind = "ant-velocity", "ant", "ant, velocity", "AntVelocity"

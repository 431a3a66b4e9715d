"""The experiment of reinforcement learning (MAML, section 5.3), and the interface of its methods."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fewstep import rl
from fewstep.experiments import experiment
from fewstep.experiments.option_types import Count
from fewstep.experiments.reinforcement.worlds import World
from fewstep.tasks import TaskSource


@dataclass(frozen=True)
class Method(experiment.Method):
    """A method of reinforcement learning. Its fields are its options; a subclass with new fields is a dataclass too."""

    compiles: ClassVar[bool] = False
    observes_task: ClassVar[bool] = False
    """Whether the task is an input of the policy."""
    printed: ClassVar[dict[str, tuple[float, ...]]] = {}
    """The paper's mean returns after 0, 1, … updates, by world."""
    source: ClassVar[str] = "MAML, the authors' released results of {figure}"
    """The source of ``printed``."""

    @property
    def context(self) -> int:
        """The length of the context vector that is concatenated to the observation."""
        return 0

    @abstractmethod
    def choices(self, policy: torch.nn.Module) -> dict[str, Any]:
        """Arguments of [`MetaPolicy`][fewstep.rl.MetaPolicy]."""

    @abstractmethod
    def outer_optimizer(self, learner: Any) -> torch.optim.Optimizer:
        """The optimiser of the outer loop."""


@dataclass(frozen=True)
class Reinforcement(experiment.Experiment):
    """Meta-learning of a policy for the tasks of an environment, or one of its baselines."""

    world: World
    method: Method
    shots: Count = 20
    """Number of episodes per task and inner step, K."""
    horizon: Count = 200
    """Number of steps after which an episode is truncated."""
    chunk: Count | None = 5
    """Number of tasks that are differentiated at once; None for all."""
    meta_batch: Count = 40
    """Number of tasks per outer iteration."""
    iterations: Count = 500
    """Number of outer iterations."""
    test_task_count: Count = 40
    """Number of test tasks."""
    test_episodes: Count | None = None
    """Number of episodes before each update at test and after the last; None for that of training."""
    activation: Literal["relu", "tanh"] = "relu"
    """Nonlinearity of the policy."""
    test_checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to test: the best in validation, or the last."""

    former_options: ClassVar[frozenset[str]] = frozenset(
        ("rewards", "inner_lr", "steps", "context", "max_kl", "cg_tasks", "test_steps", "test_goals")
    )

    @property
    def metric(self) -> Callable[..., Tensor]:
        """The mean undiscounted return."""
        return rl.mean_return

    def learner(self, compile: bool | str) -> Any:
        """The method's learner of the paper's network with two hidden layers of 100 units; it is never compiled."""
        environment = self.environment(self.meta_batch * self.shots)
        policy = rl.GaussianPolicy(
            environment.single_observation_space.shape[0],
            environment.single_action_space.shape[0],
            activation=torch.nn.Tanh if self.activation == "tanh" else torch.nn.ReLU,
            context=self.method.context,
        )
        rollouts = rl.Rollouts(environment, self.shots)
        return rl.MetaPolicy(policy, rollouts, chunk=self.chunk, **self.method.choices(policy))

    def outer_optimizer(self, learner: Any) -> torch.optim.Optimizer:
        return self.method.outer_optimizer(learner)

    def train_source(self) -> TaskSource:
        """Goals, directions or velocities that the environment draws."""
        return rl.EnvironmentTasks(self.environment(self.meta_batch * self.shots), self.shots)

    def validation_source(self) -> TaskSource:
        return self.train_source()

    def test_source(self, shots: int | None = None, queries: int | None = None) -> TaskSource:
        """Test tasks, which are drawn as in training or the paper's goals, with ``test_episodes`` episodes each."""
        if shots is not None or queries is not None:
            raise ValueError("--shots and --queries do not apply to reinforcement learning. Use --episodes.")
        episodes = self.test_episodes or self.shots
        environment = self.environment(self.test_task_count * episodes)
        return rl.EnvironmentTasks(environment, episodes, tasks=self.world.goals_of_the_paper())

    def test_protocol(self) -> dict[str, Any]:
        goals = "drawn" if self.world.goals_of_the_paper() is None else "paper"
        return {**super().test_protocol(), "episodes": self.test_episodes or self.shots, "goals": goals}

    def tested_with(self, episodes: int | None, goals: str | None) -> Reinforcement:
        return replace(self, world=self.world.tested_on(goals), test_episodes=episodes or self.test_episodes)

    def plot(self, run: Any) -> list[Path]:
        """Paths or a film before and after adaptation; see [`policies`][fewstep.figures.policies]."""
        from fewstep.figures import policies

        learner = run.load_learner()
        if self.world.name == "navigation":
            return [policies.plot_paths(learner, run.folder.path / "paths.png", self.test_steps)]
        environment = self.environment(1, render_mode="rgb_array")
        return policies.film(learner, environment, run.folder.path, self.test_steps)

    def example(self, run: Any) -> tuple[Any, str] | None:
        """Paths to two goals before adaptation and after the last update, for a report; ``None`` for robots."""
        from fewstep.figures.policies import draw_paths

        if self.world.name != "navigation":
            return None
        updates = sorted({0, self.test_steps})
        return draw_paths(run.load_learner(), updates, goals=2), "Paths to two goals, before and after adaptation."

    def environment(self, copies: int, **options: Any) -> Any:
        """An environment of the world with a number of copies."""
        return self.world.environment(copies, self.horizon, self.method.observes_task, **options)

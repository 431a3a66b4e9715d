"""Reinforcement learning: 2D navigation, and a cheetah and an ant that are to run (MAML, section 5.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import fewstep
from fewstep import rl
from fewstep.experiments.experiment import Row
from fewstep.experiments.option_types import Count, NonNegative, Number, Positive
from fewstep.tasks import TaskSource

World = Literal["navigation", "cheetah-direction", "cheetah-velocity", "ant-direction", "ant-velocity"]
Method = Literal[
    "maml", "fomaml", "anil", "meta-sgd", "context", "e-maml", "dice", "promp", "pretrained", "oracle", "random"
]


@dataclass(frozen=True)
class Reinforcement:
    """Meta-learning a policy for the tasks of an environment, or one of the baselines it is compared with."""

    world: World = "navigation"
    """What the tasks are of: a goal in the plane to find, a direction or a velocity to run in."""
    method: Method = "maml"
    """What is trained."""
    rewards: Literal["paper", "gymnasium"] = "paper"
    """Whose terms the reward of cheetah and ant has beside the task's."""
    shots: Count = 20
    """Episodes per task and step, K."""
    horizon: Count = 200
    """Steps of an episode."""
    inner_lr: NonNegative = 0.1
    """Step size of the inner loop, and of the first update at test; it is halved for the others."""
    steps: Number = 1
    """Inner steps in training."""
    context: Number = 10
    """Length of the context vector, where the method is context."""
    max_kl: Positive = 0.01
    """Bound on how far TRPO moves the adapted policies in one step."""
    cg_tasks: Count | None = 5
    """TRPO's Fisher matrix is taken of so many tasks of the meta-batch, which changes the direction of a step a little
    and saves most of its time; None takes all."""
    chunk: Count | None = 5
    """Tasks that are differentiated at once; None for all."""
    meta_batch: Count = 40
    """Tasks per outer iteration."""
    iterations: Count = 500
    """Outer iterations."""
    test_steps: Number = 3
    """Updates at test."""
    test_task_count: Count = 40
    """Tasks to test on."""
    test_episodes: Count | None = None
    """Episodes for each update at test, and as many after the last; as in training if not given."""
    test_goals: Literal["drawn", "paper"] = "drawn"
    """Which tasks to test on: drawn as in training, or the 40 goals of the paper's authors (2D navigation)."""
    activation: Literal["relu", "tanh"] = "relu"
    """Nonlinearity of the policy."""
    test_checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint is tested: the best in validation, or the last."""

    @property
    def tasks_per_iteration(self) -> float:
        """The meta-batch."""
        return self.meta_batch

    @property
    def metric(self) -> Callable[..., Tensor]:
        """The mean undiscounted return."""
        return rl.mean_return

    def learner(self, compile: bool | str) -> Any:
        """The method's learner, on the paper's network of two hidden layers of 100 units; it is never compiled."""
        environment = self.environment(self.meta_batch * self.shots)
        observations, actions = (
            space.shape[0] for space in (environment.single_observation_space, environment.single_action_space)
        )
        policy = rl.GaussianPolicy(
            observations,
            actions,
            activation=torch.nn.Tanh if self.activation == "tanh" else torch.nn.ReLU,
            context=self.context if self.method == "context" else 0,
        )
        choices: dict[str, Any] = {
            "rule": fewstep.GradientDescent(self.inner_lr),
            "steps": self.steps,
            "chunk": self.chunk,
        }
        if self.method in ("pretrained", "oracle"):
            choices["steps"] = 0
        elif self.method == "fomaml":
            choices["adjoint"] = fewstep.FirstOrder()
        elif self.method in ("anil", "context"):
            choices["adapts"] = "network.4.*" if self.method == "anil" else "context"
        elif self.method == "meta-sgd":
            choices["rule"] = fewstep.LearnedRates(dict(policy.named_parameters()), self.inner_lr, per="parameter")
        elif self.method == "e-maml":
            choices["objective"] = rl.e_maml
        elif self.method == "dice":
            choices["inner_loss"] = rl.dice
        elif self.method == "promp":
            choices.update(inner_loss=rl.surrogate, loss=rl.clipped_surrogate(0.3))
        return rl.MetaPolicy(policy, rl.Rollouts(environment, self.shots), **choices)

    def outer_optimizer(self, learner: Any) -> torch.optim.Optimizer:
        """TRPO; ProMP's own; for the random initialisation one that does not move."""
        if self.method == "random":
            return torch.optim.SGD(learner.parameters(), lr=0.0)
        if self.method == "promp":
            return rl.ProMP(learner)
        return rl.TRPO(learner, self.max_kl, cg_tasks=self.cg_tasks)

    def train_source(self) -> TaskSource:
        """Goals, directions or velocities, as the environment draws them."""
        return rl.EnvironmentTasks(self.environment(self.meta_batch * self.shots), self.shots)

    def validation_source(self) -> TaskSource:
        """As training tasks."""
        return self.train_source()

    def test_source(self, shots: int | None = None, queries: int | None = None) -> TaskSource:
        """Tasks with ``test_episodes`` episodes for each update: drawn as in training, or the paper's goals."""
        if shots is not None or queries is not None:
            raise ValueError("A policy is tested with episodes, not with shots and queries: give --episodes.")
        if self.test_goals == "paper" and self.world != "navigation":
            raise ValueError(f"The paper's test goals are known of 2D navigation only; {self.world} has drawn ones.")
        episodes = self.test_episodes or self.shots
        goals = rl.environments.paper_goals() if self.test_goals == "paper" else None
        return rl.EnvironmentTasks(self.environment(self.test_task_count * episodes), episodes, tasks=goals)

    def plot(self, run: Any) -> list[Path]:
        """Paths or a film, before and after updates; see :mod:`fewstep.figures.policies`."""
        from fewstep.figures import policies

        learner = run.load_learner()
        if self.world == "navigation":
            return [policies.plot_paths(learner, run.folder.path / "paths.png", self.test_steps)]
        environment = self.environment(1, render_mode="rgb_array")
        return policies.film(learner, environment, run.folder.path, self.test_steps)

    def example(self, run: Any) -> tuple[Any, str] | None:
        """Paths to two goals before adaptation and after the last update, for a report; robots have a film instead."""
        from fewstep.figures.policies import draw_paths

        if self.world != "navigation":
            return None
        updates = sorted({0, self.test_steps})
        return draw_paths(run.load_learner(), updates, goals=2), "Paths to two goals, before and after adaptation."

    def environment(self, copies: int, **options: Any) -> Any:
        """The environment, with as many threads as PyTorch has."""
        observes = self.method == "oracle"
        if self.world == "navigation":
            return rl.environments.PointNavigation(copies, observe_task=observes, horizon=self.horizon, **options)
        kind = {
            "cheetah-direction": rl.environments.HalfCheetahDirection,
            "cheetah-velocity": rl.environments.HalfCheetahVelocity,
            "ant-direction": rl.environments.AntDirection,
            "ant-velocity": rl.environments.AntVelocity,
        }[self.world]
        return kind(
            copies,
            rewards=self.rewards,
            horizon=self.horizon,
            observe_task=observes,
            threads=min(copies, torch.get_num_threads()),
            **options,
        )


_SUMMARIES: dict[Method, str] = {
    "maml": "MAML: one policy-gradient step, exact meta-gradient, TRPO outside",
    "fomaml": "first-order MAML: second derivatives dropped",
    "anil": "ANIL: only the last layer of the policy is adapted",
    "meta-sgd": "Meta-SGD: a learned rate for every entry of every parameter",
    "context": "only a context vector beside the observation is adapted",
    "e-maml": "E-MAML: with credit for what was explored before the update",
    "dice": "the inner loss is DiCE, right in all derivatives",
    "promp": "ProMP: importance ratios inside, clipped ones and several steps outside",
    "pretrained": "one policy on all tasks, fine-tuned at test",
    "oracle": "the task is an input of the policy, which is not adapted",
    "random": "not trained: adapted from a random initialisation",
}
_PAPER_TEST = {"test_episodes": 40, "test_goals": "paper"}
_WORLDS: dict[World, tuple[str, dict[str, Any]]] = {
    "navigation": ("Figure 4", {"horizon": 100, "meta_batch": 20, "iterations": 150, **_PAPER_TEST}),
    "cheetah-direction": ("Figure 5", {}),
    "cheetah-velocity": ("Figure 5", {}),
    "ant-direction": ("Figure 5", {"shots": 40}),
    "ant-velocity": ("Figure 5", {}),
}
_PAPER: dict[tuple[World, Method], tuple[float, ...]] = {
    ("navigation", "maml"): (-40.4, -11.7, -3.3, -3.2),
    ("navigation", "random"): (-82.7, -58.0, -53.8, -46.8),
    ("navigation", "context"): (-42.42, -13.90, -5.17, -3.18),
    ("navigation", "oracle"): (-2.3,),
    ("cheetah-velocity", "maml"): (-129.5, -78.6, -66.6, -60.8),
    ("cheetah-velocity", "pretrained"): (-158.0, -135.4, -128.5, -133.6),
    ("cheetah-velocity", "oracle"): (-54.5,),
    ("cheetah-direction", "maml"): (-50.7, 293.2, 313.5, 315.7),
    ("cheetah-direction", "pretrained"): (-43.0, -24.8, -12.9, 19.6),
    ("cheetah-direction", "context"): (-40.49, -44.08, -38.27, -42.50),
    ("cheetah-direction", "oracle"): (442.7,),
    ("ant-velocity", "maml"): (30.6, 96.7, 100.1, 101.4),
    ("ant-velocity", "pretrained"): (-1.8, 6.1, 8.5, 9.5),
    ("ant-velocity", "oracle"): (107.9,),
    ("ant-direction", "maml"): (8.7, 499.2, 500.7, 499.1),
    ("ant-direction", "pretrained"): (3.2, 1.3, 6.5, 6.9),
    ("ant-direction", "oracle"): (524.8,),
}
_TRAINING = {"compile": False, "log_every": 5, "checkpoint_every": 25, "validate_every": 25, "validation_tasks": 40}


def _row(world: World, method: Method) -> Row:
    figure, settings = _WORLDS[world]
    if method == "random":
        settings = {**settings, "iterations": 1}
    config = Reinforcement(world, method, test_steps=0 if method == "oracle" else 3, **settings)
    paper = dict(enumerate(_PAPER.get((world, method), ())))
    place = f"Tables 4 and 5 ({figure})" if method == "context" else f"the authors' released results of {figure}"
    summary = f"{_SUMMARIES[method]}{'' if world == 'navigation' else '; other robots than the papers'}"
    return Row(f"{world}-{method}", summary, config, paper, f"MAML, {place}" if paper else "", training=_TRAINING)


def _random_of_the_authors() -> Row:
    """The random initialisation with the settings of the authors' script beside ours."""
    ours = _row("navigation", "random")
    config = replace(ours.config, activation="tanh", inner_lr=0.5)
    summary = f"{ours.summary}, with the authors' settings: tanh and a step size of 0.5"
    return replace(ours, name="navigation-random-tanh", summary=summary, config=config)


ROWS = [_row(world, method) for world in _WORLDS for method in _SUMMARIES]
ROWS.insert([row.name for row in ROWS].index("navigation-random") + 1, _random_of_the_authors())

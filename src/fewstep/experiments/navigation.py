"""2D navigation: the rows of the MAML paper's section 5.3, Figure 4."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import fewstep
from fewstep import rl
from fewstep.experiments.experiment import Row
from fewstep.tasks import TaskSource

Method = Literal["maml", "fomaml", "anil", "pretrained", "oracle", "random"]


@dataclass(frozen=True)
class Navigation:
    """Meta-learning to find a goal in the plane, or one of the baselines it is compared with."""

    method: Method = "maml"
    """What is trained."""
    shots: int = 20
    """Episodes per task and step, K."""
    inner_lr: float = 0.1
    """Step size of the inner loop, and of the first update at test; it is halved for the others."""
    steps: int = 1
    """Inner steps in training."""
    max_kl: float = 0.01
    """Bound on how far TRPO moves the adapted policies in one step."""
    cg_tasks: int | None = 5
    """TRPO's Fisher matrix is taken of so many tasks of the meta-batch, which changes the direction of a step a little
    and saves most of its time; None takes all."""
    meta_batch: int = 20
    """Tasks per outer iteration."""
    iterations: int = 300
    """Outer iterations."""
    test_steps: int = 3
    """Updates at test."""
    test_task_count: int = 40
    """Goals to test on."""
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

    def learner(self, compile: bool) -> Any:
        """The method's learner, on the paper's network of two hidden layers of 100 units; it is never compiled."""
        environment = self._environment()
        inputs = environment.single_observation_space.shape[0]
        choices: dict[str, Any] = {
            "steps": 0 if self.method in ("pretrained", "oracle") else self.steps,
            "adjoint": fewstep.FirstOrder() if self.method == "fomaml" else fewstep.Unrolled(),
            "adapts": "network.4.*" if self.method == "anil" else "*",
        }
        return rl.MetaPolicy(
            rl.GaussianPolicy(inputs, 2),
            rl.Rollouts(environment, self.shots),
            rule=fewstep.GradientDescent(self.inner_lr),
            **choices,
        )

    def outer_optimizer(self, learner: Any) -> torch.optim.Optimizer:
        """TRPO; for the random initialisation one that does not move."""
        if self.method == "random":
            return torch.optim.SGD(learner.parameters(), lr=0.0)
        return rl.TRPO(learner, self.max_kl, cg_tasks=self.cg_tasks)

    def train_tasks(self) -> TaskSource:
        """Goals, uniform in a square."""
        return rl.EnvironmentTasks(self._environment())

    def validation_tasks(self) -> TaskSource:
        """As training tasks."""
        return self.train_tasks()

    def test_tasks(self, shots: int | None = None, queries: int | None = None) -> TaskSource:
        """As training tasks; the number of episodes is the learner's."""
        if shots is not None or queries is not None:
            raise ValueError("2D navigation is tested with the episodes that it is trained with; shots and queries no.")
        return self.train_tasks()

    def plot(self, run: Any) -> list[Path]:
        """No figures of its own."""
        return []

    def _environment(self) -> Any:
        copies = self.meta_batch * self.shots
        return rl.environments.PointNavigation(copies, observe_task=self.method == "oracle")


_PAPER: dict[Method, dict[int, float]] = {
    "maml": {0: -40.4, 1: -11.7, 2: -3.3, 3: -3.2},
    "random": {0: -82.7, 1: -58.0, 2: -53.8, 3: -46.8},
    "oracle": {0: -2.3},
}
_SUMMARIES: dict[Method, str] = {
    "maml": "MAML: one policy-gradient step, exact meta-gradient, TRPO outside",
    "fomaml": "first-order MAML: second derivatives dropped",
    "anil": "ANIL: only the last layer of the policy is adapted",
    "pretrained": "one policy on all tasks, fine-tuned at test",
    "oracle": "the goal is an input of the policy, which is not adapted",
    "random": "not trained: adapted from a random initialisation",
}
_TRAINING = {"compile": False, "log_every": 5, "checkpoint_every": 25, "validate_every": 25, "validation_tasks": 40}


def _row(method: Method, summary: str) -> Row:
    config = Navigation(
        method,
        iterations=1 if method == "random" else 300,
        test_steps=0 if method == "oracle" else 3,
    )
    paper = _PAPER.get(method, {})
    source = "MAML, the authors' released results of Figure 4" if paper else ""
    return Row(f"navigation-{method}", summary, config, paper, source, training=_TRAINING)


ROWS = [_row(method, summary) for method, summary in _SUMMARIES.items()]

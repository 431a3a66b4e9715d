"""Sinusoid regression (MAML, section 5.1): the setting, and what a method of it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

import fewstep
from fewstep.experiments import experiment
from fewstep.experiments.option_types import Count, NonNegative
from fewstep.tasks import Sinusoids, TaskSource


@dataclass(frozen=True)
class Method(experiment.Method):
    """A method of sinusoid regression. Its fields are its own options; a subclass that adds some is decorated."""

    oracle: ClassVar[bool] = False
    """Whether amplitude and phase are inputs of the network."""

    @abstractmethod
    def learner(self, model: torch.nn.Module, meta_batch: int, compile: bool | str) -> Any:
        """A fresh learner."""

    def train_source(self, setting: Sinusoid) -> TaskSource:
        """Where training tasks come from."""
        return Sinusoids(setting.shots, setting.shots, oracle=self.oracle)


@dataclass(frozen=True)
class Sinusoid(experiment.Experiment):
    """Meta-learning of sine waves, or one of the baselines it is compared with."""

    method: Method
    shots: Count = 5
    """Support points per task, K; as many query points in training."""
    outer_lr: NonNegative = 1e-3
    """Adam's learning rate in the outer loop."""
    meta_batch: Count = 25
    """Tasks per outer iteration (for the multi-task baselines: the number of regressors)."""
    iterations: Count = 70_000
    """Outer iterations."""
    test_queries: Count = 100
    """Query points per test task."""
    test_checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint is tested: the best in validation, or the last."""

    former_options: ClassVar[frozenset[str]] = frozenset(("inner_lr", "steps", "penalty", "test_steps"))

    @property
    def metric(self) -> Callable[..., Tensor]:
        """Mean squared error."""
        return fewstep.mse

    def learner(self, compile: bool | str) -> Any:
        """The method's learner, on the paper's network 1-40-40-1 with its initialisation."""
        model = fewstep.models.MLP(3 if self.method.oracle else 1, [40, 40], 1, weight_std=0.01)
        return self.method.learner(model, self.meta_batch, compile)

    def outer_optimizer(self, learner: torch.nn.Module) -> torch.optim.Optimizer:
        """Adam, in its single-kernel form."""
        return torch.optim.Adam(
            [value for value in learner.parameters() if value.requires_grad], self.outer_lr, fused=True
        )

    def train_source(self) -> TaskSource:
        """The paper's sine waves; for the multi-task baselines a fixed pool of them."""
        return self.method.train_source(self)

    def validation_source(self) -> TaskSource:
        return self.test_source()

    def test_source(self, shots: int | None = None, queries: int | None = None) -> TaskSource:
        """New sine waves, with more query points than in training for a smaller error of the estimate."""
        return Sinusoids(shots or self.shots, queries or self.test_queries, oracle=self.method.oracle)

    def test_protocol(self) -> dict[str, Any]:
        return {**super().test_protocol(), "queries": self.test_queries}

    def plot(self, run: Any) -> list[Path]:
        """Figure 2's fits, for methods that see x only."""
        from fewstep.figures.sinusoids import plot_fits

        if self.method.oracle:
            return []
        return [plot_fits({self.method.name: run.load_learner()}, run.folder.path / "fits.png")]

    def example(self, run: Any) -> tuple[Any, str] | None:
        """One wave and its fits, for a report; for methods that see x only."""
        from fewstep.figures.sinusoids import draw_fit
        from fewstep.figures.style import figure, legend_below

        if self.method.oracle:
            return None
        drawn, ((axes,),) = figure(width=4.6, height=3.6)
        draw_fit(axes, run.load_learner(), self.shots)
        legend_below(drawn, axes)
        return drawn, f"A sine wave of amplitude 4 from {self.shots} points, before and after adaptation."

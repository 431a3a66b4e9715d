"""Sinusoid regression: the rows of the MAML paper's section 5.1, Table 2 (appendix C) and Figures 2 and 3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import fewstep
from fewstep.baselines import MultiTask, l2_penalty, mean_penalty, no_penalty, pretrained
from fewstep.experiments.experiment import Row
from fewstep.experiments.option_types import Count, NonNegative, Number
from fewstep.tasks import SinusoidPool, Sinusoids, TaskSource

Method = Literal[
    "maml", "fomaml", "anil", "meta-sgd", "reptile", "pretrained", "oracle", "multi-task", "multi-task-l2",
    "multi-task-mean",
]  # fmt: skip


@dataclass(frozen=True)
class Sinusoid:
    """Meta-learning of sine waves, or one of the baselines it is compared with."""

    method: Method = "maml"
    """What is trained."""
    shots: Count = 5
    """Support points per task, K; as many query points in training."""
    inner_lr: NonNegative = 0.005
    """Step size of the inner loop, and of fine-tuning at test."""
    steps: Number = 1
    """Inner steps in training."""
    outer_lr: NonNegative = 1e-3
    """Adam's learning rate in the outer loop."""
    meta_batch: Count = 25
    """Tasks per outer iteration (for the multi-task baselines: the number of regressors)."""
    iterations: Count = 70_000
    """Outer iterations."""
    penalty: NonNegative = 0.0
    """Weight of the multi-task baselines' regulariser."""
    test_steps: Number = 10
    """Inner steps at test."""
    test_queries: Count = 100
    """Query points per test task."""
    test_checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint is tested: the best in validation, or the last."""

    @property
    def tasks_per_iteration(self) -> float:
        """The meta-batch."""
        return self.meta_batch

    @property
    def metric(self) -> Callable[..., Tensor]:
        """Mean squared error."""
        return fewstep.mse

    def learner(self, compile: bool | str) -> Any:
        """The method's learner, on the paper's network 1-40-40-1 with its initialisation."""
        inputs = 3 if self.method == "oracle" else 1
        model = fewstep.models.MLP(inputs, [40, 40], 1, weight_std=0.01)
        mse, lr, steps = fewstep.mse, self.inner_lr, self.steps
        match self.method:
            case "maml":
                return fewstep.maml(model, mse, lr, steps, compile=compile)
            case "fomaml":
                return fewstep.fomaml(model, mse, lr, steps, compile=compile)
            case "anil":
                return fewstep.anil(model, mse, lr, steps, head="4.*", compile=compile)
            case "meta-sgd":
                return fewstep.meta_sgd(model, mse, lr, steps, compile=compile)
            case "reptile":
                return fewstep.reptile(model, mse, fewstep.GradientDescent(lr), steps, compile=compile)
            case "pretrained" | "oracle":
                return pretrained(model, mse, lr, compile=compile)
            case "multi-task" | "multi-task-l2" | "multi-task-mean":
                penalties = {"multi-task": no_penalty, "multi-task-l2": l2_penalty, "multi-task-mean": mean_penalty}
                rule = fewstep.GradientDescent(lr)
                return MultiTask(model, mse, self.meta_batch, rule, penalties[self.method], self.penalty)
        raise ValueError(f"Sinusoid has no method {self.method!r}.")

    def outer_optimizer(self, learner: torch.nn.Module) -> torch.optim.Optimizer:
        """Adam, in its single-kernel form."""
        return torch.optim.Adam(
            [value for value in learner.parameters() if value.requires_grad], self.outer_lr, fused=True
        )

    def train_source(self) -> TaskSource:
        """The paper's sine waves; for the multi-task baselines a fixed pool of them."""
        if self.method.startswith("multi-task"):
            return SinusoidPool(Sinusoids(self.shots, queries=10), self.meta_batch)
        return Sinusoids(self.shots, self.shots, oracle=self.method == "oracle")

    def validation_source(self) -> TaskSource:
        """As test tasks."""
        return self.test_source()

    def test_source(self, shots: int | None = None, queries: int | None = None) -> TaskSource:
        """New sine waves, with more query points than in training for a smaller error of the estimate."""
        return Sinusoids(shots or self.shots, queries or self.test_queries, oracle=self.method == "oracle")

    def plot(self, run: Any) -> list[Path]:
        """Figure 2's fits, for methods that see x only."""
        from fewstep.figures.sinusoids import plot_fits

        if self.method == "oracle":
            return []
        return [plot_fits({self.method: run.load_learner()}, run.folder.path / "fits.png")]

    def example(self, run: Any) -> tuple[Any, str] | None:
        """One wave and its fits, for a report; for methods that see x only."""
        from fewstep.figures.sinusoids import draw_fit
        from fewstep.figures.style import figure, legend_below

        if self.method == "oracle":
            return None
        drawn, ((axes,),) = figure(width=4.6, height=3.6)
        draw_fit(axes, run.load_learner(), self.shots)
        legend_below(drawn, axes)
        return drawn, f"A sine wave of amplitude 4 from {self.shots} points, before and after adaptation."


_FIGURE_3 = (5, 10, 20)
_TABLE_2 = "MAML, appendix C, Table 2"
_PAPER: dict[str, dict[int, float]] = {
    "maml": {1: 0.67, 5: 0.38, 10: 0.35},
    "pretrained": {1: 2.41, 5: 2.23, 10: 2.19},
    "multi-task": {1: 4.19, 5: 3.85, 10: 3.69},
    "multi-task-l2": {1: 7.18, 5: 5.69, 10: 5.60},
    "multi-task-mean": {1: 2.91, 5: 2.72, 10: 2.71},
}
_SUMMARIES: dict[Method, str] = {
    "maml": "MAML: one gradient step, exact meta-gradient",
    "fomaml": "first-order MAML: second derivatives dropped",
    "pretrained": "one network on all tasks, fine-tuned at test",
    "oracle": "amplitude and phase are inputs of the network, which is not adapted",
}


def _rows() -> list[Row]:
    rows = []
    for shots in (5, 10, 20):
        for method, summary in _SUMMARIES.items():
            # Of 0.001 … 0.02, fine-tuning at 0.01 does best on validation tasks; the paper has 0.02 for K = 10 and 20.
            lr = 0.01 if method == "pretrained" else 0.005
            paper = _PAPER.get(method, {}) if shots == 5 else {}
            config = Sinusoid(method, shots, inner_lr=lr, test_steps=0 if method == "oracle" else 10)
            rows.append(
                Row(
                    f"sinusoid-{shots}shot-{method}",
                    summary,
                    config,
                    paper,
                    _TABLE_2 if paper else "",
                    other_shots=_FIGURE_3,
                )
            )
    for lr, words in ((0.01, "that the paper prints"), (0.001, "that is the default of the paper's code")):
        summary = f"MAML at the inner rate {words}"
        rows.append(
            Row(
                f"sinusoid-5shot-maml-lr{lr}",
                summary,
                Sinusoid(inner_lr=lr),
                _PAPER["maml"],
                _TABLE_2,
                other_shots=_FIGURE_3,
            )
        )
    multi_task: list[tuple[Method, str, float, float]] = [  # the last: fine-tuning rate, tuned on validation tasks
        ("multi-task", "not regularised", 0.0, 0.005),
        ("multi-task-l2", "with an L2 penalty", 1e-3, 0.005),
        ("multi-task-mean", "pulled to their mean", 1e-2, 0.002),
    ]
    for method, words, penalty, lr in multi_task:
        config = Sinusoid(
            method,
            inner_lr=lr,
            meta_batch=500,
            iterations=10_000,
            penalty=penalty,
            test_checkpoint="last",  # trained until each network fits its own wave
        )
        summary = f"500 regressors, {words}, averaged and fine-tuned"
        rows.append(Row(f"sinusoid-5shot-{method}", summary, config, _PAPER[method], _TABLE_2, other_shots=_FIGURE_3))
    return rows


ROWS = _rows()

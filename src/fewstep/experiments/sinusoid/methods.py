"""The methods of sinusoid regression, and the rows of the MAML paper's Table 2 (appendix C) and Figures 2 and 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

import fewstep
from fewstep.baselines import MultiTask, l2_penalty, mean_penalty, no_penalty, pretrained
from fewstep.baselines.multi_task import Regularizer
from fewstep.experiments.option_types import NonNegative, Number
from fewstep.experiments.row import Row
from fewstep.experiments.sinusoid.experiment import Method, Sinusoid
from fewstep.tasks import SinusoidPool, Sinusoids, TaskSource


@dataclass(frozen=True)
class GradientMethod(Method):
    """A method whose inner loop takes gradient steps."""

    inner_lr: NonNegative = 0.005
    """Step size of the inner loop."""
    steps: Number = 1
    """Inner steps in training."""
    test_steps: Number = 10
    """Inner steps at test."""


class MAML(GradientMethod):
    """The exact meta-gradient."""

    name = "maml"
    summary = "MAML: one gradient step, exact meta-gradient"

    def learner(self, model: torch.nn.Module, meta_batch: int, compile: bool | str) -> Any:
        return fewstep.maml(model, fewstep.mse, self.inner_lr, self.steps, compile=compile)


class FOMAML(GradientMethod):
    """MAML whose inner gradients are treated as constants."""

    name = "fomaml"
    summary = "first-order MAML: second derivatives dropped"

    def learner(self, model: torch.nn.Module, meta_batch: int, compile: bool | str) -> Any:
        return fewstep.fomaml(model, fewstep.mse, self.inner_lr, self.steps, compile=compile)


@dataclass(frozen=True)
class Pretrained(Method):
    """One network that is trained on all tasks jointly."""

    name = "pretrained"
    summary = "one network on all tasks, fine-tuned at test"

    inner_lr: NonNegative = 0.005
    """Step size of fine-tuning at test."""
    test_steps: Number = 10
    """Steps of fine-tuning at test."""

    def learner(self, model: torch.nn.Module, meta_batch: int, compile: bool | str) -> Any:
        return pretrained(model, fewstep.mse, self.inner_lr, compile=compile)


class Oracle(Method):
    """One network that sees the task: a bound on what adaptation can reach."""

    name = "oracle"
    summary = "amplitude and phase are inputs of the network, which is not adapted"
    oracle: ClassVar[bool] = True

    def learner(self, model: torch.nn.Module, meta_batch: int, compile: bool | str) -> Any:
        """A fresh learner; its rate is that of steps that are asked for at test."""
        return pretrained(model, fewstep.mse, 0.005, compile=compile)


@dataclass(frozen=True)
class MultiTaskPlain(Method):
    """One regressor per wave of a fixed pool; the mean of their parameters is fine-tuned at test (appendix C)."""

    name = "multi-task"
    summary = "500 regressors, not regularised, averaged and fine-tuned"
    compiles: ClassVar[bool] = False
    fixed_pool: ClassVar[bool] = True

    inner_lr: NonNegative = 0.005
    """Step size of fine-tuning at test."""
    test_steps: Number = 10
    """Steps of fine-tuning at test."""

    def regularizer(self) -> tuple[Regularizer, float]:
        """The regulariser of the regressors, and its weight."""
        return no_penalty, 0.0

    def learner(self, model: torch.nn.Module, meta_batch: int, compile: bool | str) -> Any:
        return MultiTask(model, fewstep.mse, meta_batch, fewstep.GradientDescent(self.inner_lr), *self.regularizer())

    def train_source(self, setting: Sinusoid) -> TaskSource:
        """A fixed pool of sine waves."""
        return SinusoidPool(Sinusoids(setting.shots, queries=10), setting.meta_batch)


@dataclass(frozen=True)
class MultiTaskL2(MultiTaskPlain):
    """The same with weight decay."""

    name = "multi-task-l2"
    summary = "500 regressors, with an L2 penalty, averaged and fine-tuned"

    penalty: NonNegative = 1e-3
    """Weight of the penalty."""

    def regularizer(self) -> tuple[Regularizer, float]:
        return l2_penalty, self.penalty


@dataclass(frozen=True)
class MultiTaskMean(MultiTaskPlain):
    """The same with a pull to the mean of all regressors."""

    name = "multi-task-mean"
    summary = "500 regressors, pulled to their mean, averaged and fine-tuned"

    penalty: NonNegative = 1e-2
    """Weight of the penalty."""

    def regularizer(self) -> tuple[Regularizer, float]:
        return mean_penalty, self.penalty


_OF_MAML = {1: 0.67, 5: 0.38, 10: 0.35}
_OF_PRETRAINED = {1: 2.41, 5: 2.23, 10: 2.19}
_OF_MULTI_TASK = {
    MultiTaskPlain(): {1: 4.19, 5: 3.85, 10: 3.69},
    MultiTaskL2(): {1: 7.18, 5: 5.69, 10: 5.60},
    MultiTaskMean(inner_lr=0.002): {1: 2.91, 5: 2.72, 10: 2.71},
}
"""The fine-tuning rates were tuned on validation tasks."""


def _row(
    method: Method, paper: dict[int, float] | None = None, label: str | None = None, summary: str | None = None,
    training: dict[str, Any] | None = None, **settings: Any,
) -> Row:  # fmt: skip
    config, label = Sinusoid(method, **settings), label or method.name
    return Row(
        f"sinusoid-{config.shots}shot-{label}", summary or method.summary, config, table="sinusoid", label=label,
        paper=paper or {}, source="MAML, appendix C, Table 2" if paper else "", training=training or {},
        other_shots=(5, 10, 20),  # Figure 3
    )  # fmt: skip


def _of_shots(shots: int) -> list[Row]:
    maml, of_pretrained = (_OF_MAML, _OF_PRETRAINED) if shots == 5 else (None, None)  # Table 2 has 5 shots only
    return [
        _row(MAML(), maml, shots=shots),
        _row(FOMAML(), shots=shots),
        # Of 0.001 … 0.02, fine-tuning at 0.01 does best on validation tasks; the paper has 0.02 for K = 10 and 20.
        _row(Pretrained(inner_lr=0.01), of_pretrained, shots=shots),
        _row(Oracle(), shots=shots),
    ]


ROWS = [
    *_of_shots(5),
    *_of_shots(10),
    *_of_shots(20),
    _row(MAML(0.01), _OF_MAML, "maml-lr0.01", "MAML at the inner rate that the paper prints"),
    _row(MAML(0.001), _OF_MAML, "maml-lr0.001", "MAML at the inner rate that is the default of the paper's code"),
    *(
        _row(method, paper, training={"compile": False}, meta_batch=500, iterations=10_000,
             test_checkpoint="last")  # trained until each network fits its own wave
        for method, paper in _OF_MULTI_TASK.items()
    ),
]  # fmt: skip

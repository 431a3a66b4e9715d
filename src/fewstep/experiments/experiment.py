"""What an experiment is: everything that `fewstep train` needs to know about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.experiments.other_norms import OtherNorm
from fewstep.tasks import TaskSource


class Part(ABC):
    """A part of an experiment with options of its own, such as its method: a frozen dataclass.

    Its options appear on the command line and in ``config.json`` beside those of the experiment.
    """

    name: ClassVar[str]
    """Its name in ``config.json`` and on the command line."""


class Method(Part):
    """What is trained. Methods that take inner steps have ``steps`` and ``test_steps`` as options."""

    summary: ClassVar[str]
    """One line for `fewstep list`."""
    compiles: ClassVar[bool] = True
    """Whether its meta-step can be compiled."""
    fixed_pool: ClassVar[bool] = False
    """Whether its training tasks are a fixed pool, of which every meta-batch is the whole."""

    @property
    def takes_steps(self) -> bool:
        """Whether a new task is learned in steps."""
        return any(field.name == "test_steps" for field in fields(self))  # type: ignore[arg-type]

    @property
    def steps(self) -> int:
        """Inner steps in training."""
        return 0

    @property
    def test_steps(self) -> int:
        """Inner steps at test."""
        return 0


class Experiment(ABC):
    """A setting that can be trained and tested: a frozen dataclass whose fields are the command line's options."""

    method: Any
    """What is trained: a [`Method`][fewstep.experiments.experiment.Method]."""
    iterations: int
    """Outer iterations."""
    meta_batch: int
    """Tasks per outer iteration."""
    shots: int
    """Support examples (of a class), or episodes."""
    test_checkpoint: Any
    """Which checkpoint is tested: ``"best"`` or ``"last"``."""
    former_options: ClassVar[frozenset[str]] = frozenset()
    """Options that every run's ``config.json`` had before methods had their own; see
    [`load_settings`][fewstep.experiments.settings.load_settings]."""

    @property
    @abstractmethod
    def metric(self) -> Callable[..., Tensor]:
        """What is measured."""

    @abstractmethod
    def learner(self, compile: bool | str) -> Any:
        """A fresh learner, its weights from PyTorch's global generator; ``compile`` is that of ``MetaLearner``."""

    @abstractmethod
    def outer_optimizer(self, learner: Any) -> torch.optim.Optimizer:
        """The optimiser of the outer loop over the learner's parameters."""

    @abstractmethod
    def train_source(self) -> TaskSource:
        """Where training tasks come from."""

    @abstractmethod
    def validation_source(self) -> TaskSource:
        """Where validation tasks come from."""

    @abstractmethod
    def test_source(self, shots: int | None = None, queries: int | None = None) -> TaskSource:
        """Where test tasks come from; with other numbers of shots and queries (of a class) if given."""

    @abstractmethod
    def plot(self, run: Any) -> list[Path]:
        """Draws the figures of a run into its folder, and returns their files."""

    def example(self, run: Any) -> tuple[Any, str] | None:
        """A figure of what the learner does in one task, and its caption, for a report; ``None`` if there is none."""
        return None

    @property
    def test_steps(self) -> int:
        """Inner steps at test; 0 for a method that takes none."""
        return int(self.method.test_steps)

    @property
    def test_task_count(self) -> int:
        """Tasks to test on."""
        return 600

    @property
    def tasks_per_iteration(self) -> float:
        """Training tasks of one outer iteration."""
        return self.meta_batch

    @property
    def work_per_iteration(self) -> float:
        """Examples that go through the network in one outer iteration, large images counted more than once."""
        return float(self.meta_batch * (self.shots * max(1, self.method.steps) + 1))

    def test_protocol(self) -> dict[str, Any]:
        """The options of ``fewstep evaluate`` that hold if none are given, with those that apply here."""
        return {"tasks": self.test_task_count, "steps": self.test_steps, "checkpoint": self.test_checkpoint}

    def unused_options(self) -> dict[str, str]:
        """Options that have no effect beside the other settings, each with the reason."""
        return {}

    def under_norm(self, norm: OtherNorm) -> Any:
        """The experiment with another normalisation policy, whose learner takes the same parameters."""
        raise ValueError(f"the network of a {type(self).__name__} experiment has no normalisation to change.")

    def tested_with(self, episodes: int | None, goals: str | None) -> Any:
        """The experiment with other episodes and goals at test, if any are given."""
        if episodes is None and goals is None:
            return self
        raise ValueError("--episodes and --goals are for experiments of reinforcement learning.")

"""What a checkpoint of training holds."""

from __future__ import annotations

from typing import Any

import torch

from fewstep.adaptation.random_numbers import random_state, set_random_state
from fewstep.training.load import check_same_parameters
from fewstep.training.processor import processor

PACES = 500
"""Number of latest paces that a run remembers."""


class State:
    """All that changes while training.

    Args:
        learner: the learner that is trained.
        optimizer: the optimiser of the outer loop.
        scheduler: a schedule of its learning rate, if any.
    """

    def __init__(self, learner: Any, optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
        self.learner, self.optimizer, self.scheduler = learner, optimizer, scheduler
        self.iteration = 0
        self.seconds = 0.0
        """Training time without validation."""
        self.validation_seconds = 0.0
        self.latest_validation_seconds = 0.0
        self.starting_seconds = 0.0
        """Time of the first iteration of the latest session, in which the meta-step is compiled."""
        self.paces: list[float] = []
        """Seconds per iteration between the latest rows of metrics. Their median is robust against compilation and
        other load on the machine."""
        self.best: float | None = None
        """The best result in validation."""
        self.processors = [processor(next(iter(learner.parameters())).device)]
        """The processors it was trained on, the latest last."""

    def note_pace(self, seconds: float) -> None:
        """Adds the seconds per iteration since the last row of metrics."""
        self.paces = [*self.paces, seconds][-PACES:]

    def snapshot(self) -> dict[str, Any]:
        """The content of a checkpoint."""
        return {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "validation_seconds": self.validation_seconds,
            "latest_validation_seconds": self.latest_validation_seconds,
            "starting_seconds": self.starting_seconds,
            "paces": self.paces,
            "best": self.best,
            "processors": self.processors,
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_kind": type(self.optimizer).__name__,
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "random": random_state(),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Continues from the content of a checkpoint.

        Raises:
            ValueError: it belongs to another learner or to another kind of optimiser.
        """
        check_same_parameters(
            snapshot["learner"], self.learner, "fit: the learner differs from the one that was trained"
        )
        kind, own = snapshot.get("optimizer_kind"), type(self.optimizer).__name__  # older checkpoints have none
        if kind not in (None, own):
            raise ValueError(f"fit: the run was trained with {kind}; resume it with {kind}. Got {own}.")
        self.iteration, self.seconds, self.best = snapshot["iteration"], snapshot["seconds"], snapshot["best"]
        self.validation_seconds = snapshot.get("validation_seconds", 0.0)  # older runs counted it as training
        self.paces = snapshot.get("paces", [])
        before = snapshot.get("processors", self.processors)
        if before[-1] != self.processors[-1]:
            self.paces = []
        else:
            self.latest_validation_seconds = snapshot.get("latest_validation_seconds", 0.0)
        self.processors = [*(name for name in before if name != self.processors[-1]), self.processors[-1]]
        self.learner.load_state_dict(snapshot["learner"])
        self.optimizer.load_state_dict(snapshot["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(snapshot["scheduler"])
        set_random_state(snapshot["random"])

"""What a checkpoint of training holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fewstep.adaptation.random_numbers import random_state, set_random_state
from fewstep.training.processor import processor


class State:
    """All that changes while training."""

    def __init__(self, learner: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
        self.learner, self.optimizer, self.scheduler = learner, optimizer, scheduler
        self.iteration = 0
        self.seconds = 0.0
        """Spent training, validations not counted."""
        self.validation_seconds = 0.0
        self.latest_validation_seconds = 0.0
        self.starting_seconds = 0.0
        """Of the first iteration of the latest session, in which the meta-step is compiled."""
        self.paces: list[float] = []
        """Seconds per iteration, from one line of metrics to the next, of the last lines. Their median is not moved by
        what else the machine does now and then, nor by the time that compiling takes."""
        self.best: float | None = None
        self.processors = [processor(next(iter(learner.parameters())).device)]
        """On what it was trained, the latest last."""

    def snapshot(self) -> dict[str, Any]:
        """What a checkpoint holds."""
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
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "random": random_state(),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
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

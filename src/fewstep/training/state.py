"""What a checkpoint of training holds."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from fewstep.adaptation.random_numbers import random_state, set_random_state
from fewstep.training.load import check_same_parameters
from fewstep.training.processor import processor
from fewstep.training.settings import differences, of_groups, refuse_differences, settings_of

PACES = 500
"""Number of latest paces that a run remembers."""


class State:
    """All that changes while training.

    Args:
        learner: the learner that is trained.
        optimizer: the optimiser of the outer loop.
        scheduler: a schedule of its learning rate, if any.
        **options: the options of [`fit`][fewstep.fit] that the result depends on.
    """

    def __init__(self, learner: Any, optimizer: torch.optim.Optimizer, scheduler: Any = None, **options: Any) -> None:
        self.learner, self.optimizer, self.scheduler = learner, optimizer, scheduler
        self.settings = settings_of(optimizer, scheduler, **options)
        """What training depends on, by name."""
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
        self.validation_is_due = False
        """Whether the learner of this iteration is still to be validated."""
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
            "validation_is_due": self.validation_is_due,
            "settings": self.settings,
            "vmaps": _vmaps(self.learner),
            "processors": self.processors,
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_kind": type(self.optimizer).__name__,
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "random": random_state(),
        }

    def restore(
        self, snapshot: dict[str, Any], override: Iterable[str] = (), older: Mapping[str, Any] | None = None
    ) -> None:
        """Continues from the content of a checkpoint.

        Args:
            snapshot: the content.
            override: names of settings whose new values are taken over.
            older: settings of the run, for checkpoints that do not hold them.

        Raises:
            ValueError: it belongs to another learner, or was trained with other settings.
        """
        check_same_parameters(
            snapshot["learner"], self.learner, "fit: the learner differs from the one that was trained"
        )
        saved = snapshot.get("settings") or {**(older or {}), **_settings_of_older(snapshot)}
        changed = refuse_differences(differences(saved, self.settings), override, self.settings)
        self.iteration, self.seconds, self.best = snapshot["iteration"], snapshot["seconds"], snapshot["best"]
        self.validation_seconds = snapshot.get("validation_seconds", 0.0)  # older runs counted it as training
        self.validation_is_due = snapshot.get("validation_is_due", False)
        self.paces = snapshot.get("paces", [])
        before = snapshot.get("processors", self.processors)
        if before[-1] != self.processors[-1]:
            self.paces = []
        else:
            self.latest_validation_seconds = snapshot.get("latest_validation_seconds", 0.0)
        self.processors = [*(name for name in before if name != self.processors[-1]), self.processors[-1]]
        self.learner.load_state_dict(snapshot["learner"])
        _set_vmaps(self.learner, snapshot.get("vmaps", {}))
        self._restore_optimizer(snapshot, changed)
        set_random_state(snapshot["random"])

    def _restore_optimizer(self, snapshot: dict[str, Any], changed: set[str]) -> None:
        """Restores optimiser and scheduler; new settings count as if they had been so from the start."""
        of_optimizer = [name for name in changed if name in of_groups(self.optimizer.param_groups)]
        of_scheduler = [name for name in changed if name.startswith("scheduler")]
        takes_over = bool(of_optimizer or of_scheduler or "optimizer" in changed)
        replays = takes_over and self.scheduler is not None
        if replays and self.scheduler.last_epoch > 0:
            raise ValueError(
                f"fit: override={sorted(changed)} with a scheduler needs a new optimiser and a new scheduler; this one "
                f"has already taken {self.scheduler.last_epoch:,} steps."
            )
        given = [{name: value for name, value in group.items() if name != "params"}
                 for group in self.optimizer.param_groups]  # fmt: skip
        if "optimizer" not in changed:
            self.optimizer.load_state_dict(snapshot["optimizer"])
        if takes_over:
            for group, values in zip(self.optimizer.param_groups, given, strict=True):
                group.update(values)
        if replays:
            with warnings.catch_warnings():  # the optimiser took these steps in another process
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                for _ in range(self.iteration):
                    self.scheduler.step()
        elif self.scheduler is not None:
            self.scheduler.load_state_dict(snapshot["scheduler"])


def _settings_of_older(snapshot: dict[str, Any]) -> dict[str, Any]:
    """The settings of a checkpoint that was written before they were stored by name."""
    kind = snapshot.get("optimizer_kind")
    return {**({} if kind is None else {"optimizer": kind}), **of_groups(snapshot["optimizer"]["param_groups"])}


def _vmaps(learner: Any) -> dict[str, bool]:
    """Whether tasks are evaluated with vmap, as decided at the start, by kind of meta-batch."""
    each: Any = getattr(learner, "_each", None)
    always = {} if getattr(each, "vectorize", None) != "auto" or each.vmaps is None else {"": each.vmaps}
    return {**getattr(getattr(learner, "_checks", None), "vmaps", {}), **always}


def _set_vmaps(learner: Any, vmaps: dict[str, bool]) -> None:
    each: Any = getattr(learner, "_each", None)
    checks: Any = getattr(learner, "_checks", None)
    if "" in vmaps and getattr(each, "vectorize", None) == "auto":
        each.vmaps = vmaps[""]
    if checks is not None:
        checks.vmaps = {kind: decided for kind, decided in vmaps.items() if kind}

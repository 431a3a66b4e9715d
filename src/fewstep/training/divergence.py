"""Losses, gradients and parameters that are NaN or infinite."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from fewstep.training.blame import bad_task, has_bad_data
from fewstep.training.run_folder import RunFolder

IN_A_ROW = 100
"""Meta-batches in a row that may be skipped."""

KEPT_BYTES = 2**30
"""Learned parameters and buffers are not copied at every iteration if they take more than this."""


class TrainingDiverged(RuntimeError):  # noqa: N818 - says what happened
    """The loss, the gradient or a parameter became NaN or infinite.

    Args:
        message: what became so, and what to do.
        iteration: when, counted from 0.
    """

    def __init__(self, message: str, iteration: int) -> None:
        super().__init__(message)
        self.iteration = iteration


class Divergence:
    """Notices NaN and infinity before the optimiser steps, and keeps the last good parameters.

    On a GPU, it is noticed one iteration late, so that no iteration waits for the device, and the parameters from
    before that iteration are put back.

    Args:
        learner: the learner.
        folder: the run folder, for the message.
        skips: whether meta-batches with NaN or infinity are skipped, at most `IN_A_ROW` in a row.
    """

    def __init__(self, learner: nn.Module, folder: RunFolder | None, skips: bool) -> None:
        self.skipped = 0
        """Meta-batches skipped since this was last set to 0."""
        self._learner, self._folder, self._skips = learner, folder, skips
        self._learned = [value for value in learner.parameters() if value.requires_grad]
        self._kept = [*self._learned, *learner.buffers()]
        size = sum(value.numel() * value.element_size() for value in self._kept)
        self._copies: list[list[Tensor]] = [[], []] if size <= KEPT_BYTES else []
        self._late = not skips and any(value.is_cuda for value in self._learned)
        self._unread: tuple[int, Any, Tensor, torch.cuda.Event] | None = None
        self._iteration, self._tasks, self._in_a_row = 0, None, 0

    def iteration_begins(self, iteration: int, tasks: Any) -> bool:
        """Copies parameters and buffers; returns whether the meta-batch is to be evaluated."""
        self._iteration, self._tasks = iteration, tasks
        if self._copies:
            copy = self._copies[iteration % 2]
            with torch.no_grad():
                if copy:
                    torch._foreach_copy_(copy, self._kept)
                else:
                    copy.extend(value.detach().clone() for value in self._kept)
        return not (self._skips and has_bad_data(tasks))

    def is_finite(self, loss: Tensor, with_gradient: bool = True) -> bool:
        """Whether loss and gradient are finite; `False` if the meta-batch is skipped.

        Raises:
            TrainingDiverged: they are not, or too many were skipped in a row.
        """
        gradients = [value.grad for value in self._learned if value.grad is not None] if with_gradient else []
        values = [value._values() if value.is_sparse else value for value in gradients]
        with torch.no_grad():
            norms = torch._foreach_norm(values) if values else ()
            numbers = torch.stack([loss.detach(), *(norm.to(loss) for norm in norms)])
        if self._late:
            self.check_previous()
            self._unread = _read_later(self._iteration, self._tasks, numbers)
            return True
        finite = all(map(math.isfinite, numbers.tolist()))
        if finite or (math.isfinite(numbers[0].item()) and all(torch.isfinite(value).all() for value in values)):
            self._in_a_row = 0  # the square of a large gradient may be infinite
            return True
        self._bad(self._iteration, self._tasks, numbers[0].item())
        return False

    def check_previous(self) -> None:
        """On a GPU, checks the iteration before.

        Raises:
            TrainingDiverged: its loss or gradient is NaN or infinite.
        """
        if self._unread is not None:
            iteration, tasks, numbers, event = self._unread
            self._unread = None
            event.synchronize()
            if not all(map(math.isfinite, numbers.tolist())):
                self._bad(iteration, tasks, numbers[0].item())

    def check_parameters(self, done: int) -> None:
        """Checks that all parameters are finite.

        Raises:
            TrainingDiverged: one is not.
        """
        self.check_previous()
        for name, value in self._learner.named_parameters():
            if value.is_floating_point() and not torch.isfinite(value).all():
                self._restore(self._iteration)
                self._diverged(f"Parameter {name} became NaN or infinite by iteration {done}", done)

    def _bad(self, iteration: int, tasks: Any, loss: float) -> None:
        self._restore(iteration)
        if not self._skips:
            self._diverged(_what(iteration, loss), iteration, bad_task(self._learner, tasks))
        if self.skipped == 0:
            warnings.warn(
                f"{_what(iteration, loss)}; this meta-batch is skipped. {bad_task(self._learner, tasks)}", stacklevel=2
            )
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row == IN_A_ROW:
            what = f"{_what(iteration, loss)}, and {IN_A_ROW} meta-batches in a row were skipped"
            self._diverged(what, iteration, bad_task(self._learner, tasks))

    @torch.no_grad()
    def _restore(self, iteration: int) -> None:
        """Puts back what was there before an iteration, or before the one before it if that was not finite."""
        for copy in (self._copies[iteration % 2], self._copies[iteration % 2 - 1]) if self._copies else ():
            if copy and all(bool(torch.isfinite(value).all()) for value in copy[: len(self._learned)]):
                for value, before in zip(self._kept, copy, strict=True):
                    value.copy_(before)
                return

    def _diverged(self, what: str, iteration: int, where: str = "") -> NoReturn:
        kept = "."
        if self._folder is not None and self._folder.has_checkpoint():
            at = self._folder.load()["iteration"]
            kept = f"; the last good checkpoint is {self._folder.checkpoint_file()} (iteration {at})."
        raise TrainingDiverged(
            f"{what}{kept}{where and ' '}{where} Try a lower inner or outer learning rate, clip_norm=10 or "
            "clip_value=10, fewer inner steps, or float64, and check the data of that meta-batch for NaN; "
            'on_nan="skip" skips such meta-batches.',
            iteration,
        )


def mean_of(losses: Sequence[Tensor]) -> float:
    """The mean loss of the last iterations."""
    return float(torch.stack(list(losses)).mean())


def _what(iteration: int, loss: float) -> str:
    if math.isfinite(loss):
        return f"The meta-gradient became NaN or infinite at iteration {iteration}"
    return f"The meta-loss became {loss} at iteration {iteration}"


def _read_later(iteration: int, tasks: Any, numbers: Tensor) -> tuple[int, Any, Tensor, torch.cuda.Event]:
    """Starts a copy to the CPU, and returns it with the event after which it can be read."""
    copy = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    copy.copy_(numbers, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return iteration, tasks, copy, event

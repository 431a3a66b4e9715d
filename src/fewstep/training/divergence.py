"""Losses and parameters that are NaN or infinite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from fewstep.training.run_folder import RunFolder


class TrainingDiverged(RuntimeError):  # noqa: N818 - says what happened
    """The loss or a parameter became NaN or infinite.

    Args:
        message: what became so, and what to do.
        iteration: when, counted from 0.
    """

    def __init__(self, message: str, iteration: int) -> None:
        super().__init__(message)
        self.iteration = iteration


def mean_of(losses: Sequence[Tensor], done: int, folder: RunFolder | None) -> float:
    """The mean loss of the last iterations.

    Args:
        losses: scalars, one for each iteration.
        done: iterations completed with the last of them.
        folder: the run folder, for the message.

    Raises:
        TrainingDiverged: a loss is NaN or infinite.
    """
    stacked = torch.stack(list(losses))
    bad = (~torch.isfinite(stacked)).nonzero()
    if len(bad):
        first = done - len(losses) + int(bad[0])
        _diverged(f"The meta-loss became {stacked[bad[0]].item()} at iteration {first}", first, folder)
    return float(stacked.mean())


def check_parameters(learner: nn.Module, done: int, folder: RunFolder | None) -> None:
    """Checks that all parameters are finite.

    Raises:
        TrainingDiverged: one is not.
    """
    for name, value in learner.named_parameters():
        if value.is_floating_point() and not torch.isfinite(value).all():
            _diverged(f"Parameter {name} became NaN or infinite by iteration {done}", done, folder)


def _diverged(what: str, iteration: int, folder: RunFolder | None) -> NoReturn:
    kept = "."
    if folder is not None and folder.has_checkpoint():
        kept = f"; the last good checkpoint is {folder.checkpoint_file()} (iteration {folder.load()['iteration']})."
    raise TrainingDiverged(
        f"{what}{kept} Try a lower inner or outer learning rate, clip_norm=10 or clip_value=10, fewer inner steps, "
        "or float64, and check the data of that meta-batch for NaN.",
        iteration,
    )

"""Loading a trained learner from a run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal, TypeVar

from torch import Tensor, nn

from fewstep.training.run_folder import RunFolder

LearnerT = TypeVar("LearnerT", bound=nn.Module)


def load(run: str | os.PathLike[str], learner: LearnerT, which: Literal["best", "last"] = "best") -> LearnerT:
    """Loads the parameters of a run into a learner.

    Args:
        run: the folder that was given to [`fit`][fewstep.fit].
        learner: a learner made in the same way as the one that was trained. It is changed in place, and stays on its
            device.
        which: "best", the checkpoint with the best validation, or "last".

    Returns:
        The learner.

    Raises:
        TypeError: `run` is no path, or `learner` is no module.
        FileNotFoundError: there is no such checkpoint. Without `validation=`, `fit` saves the last one only.
        ValueError: names or shapes of parameters differ, and are listed, or the file is damaged, or `which` is
            another word.

    Examples:
        >>> import tempfile, fewstep as fs
        >>> def make():
        ...     return fs.maml(fs.models.MLP(1, [8], 1), fs.mse, inner_lr=0.01)
        >>> with tempfile.TemporaryDirectory() as run:
        ...     tasks = fs.tasks.Sinusoids()
        ...     metrics = fs.fit(make(), tasks, iterations=2, validation=tasks, run=run, progress=False)
        ...     learner = fs.load(run, make(), which="best")
    """
    if not isinstance(run, (str, os.PathLike)) or not isinstance(learner, nn.Module):
        raise TypeError(
            'load takes the folder of a run, then a learner: fewstep.load("runs/mine", learner); got '
            f"{type(run).__name__} and {type(learner).__name__}."
        )
    if which not in ("best", "last"):
        raise ValueError(f'load: which must be "best" or "last"; got {which!r}.')
    folder = RunFolder(run)
    existing = folder.checkpoints()
    if which not in existing:
        if existing:
            why = " fit saves it only with validation=." if which == "best" else ""
            raise FileNotFoundError(
                f'load: {folder.path} has no {which} checkpoint.{why} It has which="{existing[0]}".'
            )
        raise FileNotFoundError(f"load: {folder.path} has no checkpoints. Pass the folder given to fit(run=...).")
    saved: dict[str, Tensor] = folder.load(which)["learner"]
    check_same_parameters(saved, learner, f"load: the learner differs from the one that was trained in {folder.path}")
    learner.load_state_dict(saved)
    return learner


def check_same_parameters(saved: Mapping[str, Tensor], learner: nn.Module, what: str) -> None:
    """Checks that a learner has the names and shapes of saved parameters.

    Args:
        saved: the state of a learner in a checkpoint.
        learner: the learner that is to take it.
        what: the first words of the error.

    Raises:
        ValueError: names or shapes differ, and are listed.
    """
    own = learner.state_dict()
    differences = [
        *(f"missing in the run: {name}" for name in own if name not in saved),
        *(f"missing in the learner: {name}" for name in saved if name not in own),
        *(
            f"{name}: {_shape(saved[name])} in the run, {_shape(own[name])} in the learner"
            for name in own
            if name in saved and _shape(saved[name]) != _shape(own[name])
        ),
    ]
    if differences:
        listed = "".join(f"\n  {line}" for line in differences[:20])
        more = f"\n  and {len(differences) - 20} more" if len(differences) > 20 else ""
        raise ValueError(f"{what}. Make it with the same model and options.{listed}{more}")


def _shape(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__

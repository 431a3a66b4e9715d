"""Settings of a run that change when it is resumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from fewstep.experiments.option_types import Positive, check_options
from fewstep.experiments.settings import settings_of, with_settings
from fewstep.training.optimizers import check_optimizer


@dataclass(frozen=True)
class Changes:
    """Settings that a run can take over when it is resumed, for instance after its training diverged."""

    outer_lr: Positive | None = None
    """Outer learning rate. A schedule continues as if it had had this rate from the start."""
    clip_norm: Positive | None = None
    """Scale the meta-gradient down to this norm."""
    clip_value: Positive | None = None
    """Clamp every entry of the meta-gradient to plus or minus this value."""
    on_nan: Literal["raise", "skip"] | None = None
    """When the loss or its gradient is NaN or infinite: raise ends training, skip skips the meta-batch."""


def overridden(changes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names that changed settings have in the argument `override` of [`fit`][fewstep.fit].

    Examples:
        >>> overridden([{"iteration": 100, "outer_lr": [0.01, 0.001], "clip_norm": [None, 10.0]}])
        ['lr', 'scheduler', 'clip_norm']
    """
    names = {"outer_lr": ["lr", "scheduler"], "clip_norm": ["clip_norm"], "clip_value": ["clip_value"]}
    return list(dict.fromkeys(name for change in changes for setting in change for name in names.get(setting, [])))


def change_run(run: Any, changes: Changes) -> None:
    """Changes settings of a run for the iterations to come, and notes them in its `config.json`.

    Args:
        run: a [`Run`][fewstep.experiments.runs.Run].
        changes: the new settings.

    Raises:
        BlockingIOError: another process trains in the folder.
        ValueError: a setting is out of bounds or does not apply.
    """
    given = {name: value for name, value in vars(changes).items() if value is not None}
    training, experiment = run.begun_with, run.experiment
    training = replace(training, **{name: value for name, value in given.items() if hasattr(training, name)})
    if changes.outer_lr is not None:
        if "outer_lr" not in settings_of(experiment):
            raise ValueError(f"--outer-lr does not apply to {run.name}, whose outer optimiser has no learning rate.")
        experiment = with_settings(experiment, outer_lr=changes.outer_lr)
    check_options(training)
    check_options(experiment)
    before = {**settings_of(run.experiment), **vars(run.begun_with)}
    changed = {name: [before[name], value] for name, value in given.items() if before[name] != value}
    if not changed:
        return
    learner = experiment.learner(compile=False)
    clipping = {"clip_value": training.clip_value, "clip_norm": training.clip_norm}
    check_optimizer(experiment.outer_optimizer(learner), learner, clipping)
    with run.folder.writing():
        run.changes = [*run.changes, {"iteration": run.iterations(), **changed}]
        config = run.folder.read_json(run.folder.config_file)
        config |= {"config": settings_of(experiment), "training": vars(training), "changes": run.changes}
        run.folder.write_json(run.folder.config_file, config)
    here = {"device": run.training.device, "threads": run.training.threads}
    run.experiment, run.begun_with, run.training = experiment, training, replace(training, **here)

"""Training and testing the rows of a table, one after the other."""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fewstep.experiments.curves import save_curve
from fewstep.experiments.experiment import Training
from fewstep.experiments.plan import Planned
from fewstep.experiments.runs import Run
from fewstep.training import RunFolder, TrainingInterrupted
from fewstep.training.checkpoint import write_whole

SAVING = 10.0
"""Seconds that are kept back of a time limit for saving and copying."""

STARTING = 20.0
"""A run is not begun with fewer seconds left than this."""


def reproduce(
    planned: Iterable[Planned],
    results: Path,
    training: Training,
    progress: bool = True,
    deadline: float | None = None,
) -> dict[str, Exception]:
    """Trains and tests runs, and leaves ``EXPERIMENT-seedS.json`` and ``curves/EXPERIMENT-seedS.jsonl`` of each.

    A run that was begun goes on where it stopped; its result is there as soon as it is done. One that fails does not
    stop the others.

    Args:
        planned: as :func:`fewstep.experiments.plan.plan` gives them.
        results: folder of the results.
        training: how to train.
        progress: show progress bars.
        deadline: a time of ``time.monotonic()`` by which all has to be saved. A run that is not at its end by then is
            left in ``unfinished`` under the results, ready to go on, with its learning curve.

    Returns:
        What went wrong, by run.

    Raises:
        TrainingInterrupted: Ctrl-C; all was saved.
    """
    failures: dict[str, Exception] = {}
    until = None if deadline is None else deadline - SAVING
    for one in planned:
        if until is not None and time.monotonic() > until - STARTING:
            break
        try:
            _train_and_test(one, results, training, progress, until)
        except TrainingInterrupted as interrupt:
            words = f"{interrupt}\nOr give the same command again: it goes on with this run and those after it."
            raise TrainingInterrupted(words, interrupt.signal) from None
        except Exception as error:
            failures[one.name] = error
            print(f"{one.name} failed, and the others go on: {error}", file=sys.stderr)
            if os.environ.get("FEWSTEP_TRACEBACK"):
                traceback.print_exc()
    return failures


def _train_and_test(one: Planned, results: Path, training: Training, progress: bool, until: float | None) -> None:
    run = _opened(one, replace(training, seed=one.seed, **one.row.training))
    if one.left:  # else another process may be going on with it, whose files are not to be touched
        run.train(progress, until=one.iterations, deadline=until)
    tests = run.iterations() >= one.iterations
    tests = tests and (until is None or time.monotonic() + _seconds_of_test(run, one) < until)
    if tests:
        others = tuple(k for k in one.row.other_shots if k != one.row.config.shots)
        run.evaluate(shots=others, norms=one.row.other_norms)
        write_whole(results / f"{one.name}.json", run.folder.results_file.read_bytes())
    save_curve(run.folder.metrics(), results / "curves" / f"{one.name}.jsonl")
    unfinished = results / "unfinished" / one.name
    if tests and run.iterations() >= one.row.config.iterations:
        shutil.rmtree(unfinished, ignore_errors=True)
    elif until is not None:
        run.folder.copy_to(unfinished)


def _opened(one: Planned, training: Training) -> Run:
    """The run folder, new, as it is there, or copied from where it was begun."""
    config = one.row.config
    if one.taken_from is not None:
        RunFolder(one.taken_from).copy_to(one.folder)
    if RunFolder(one.folder).config_file.exists():
        run = Run(one.folder, training.device, training.threads)
        if (run.name, run.experiment, run.training.seed) != (one.row.name, config, one.seed):
            raise ValueError(
                f"{one.folder} holds a run with other settings than {one.row.name}; remove it, or use another --runs."
            )
    else:
        run = Run.create(one.row.name, config, training, one.folder)
    return run


def _seconds_of_test(run: Run, one: Planned) -> float:
    """About how long the test of a run will take: as its validations did, a task."""
    validations = len([row for row in run.folder.metrics() if "validation" in row])
    tested = 1 + len(one.row.other_shots) + len(one.row.other_norms)
    if not validations:
        return 60.0 * tested
    state = run.folder.load()
    per_task = state.get("validation_seconds", 0.0) / (validations * run.training.validation_tasks)
    return 10.0 + 2 * tested * per_task * float(getattr(run.experiment, "test_task_count", 600))

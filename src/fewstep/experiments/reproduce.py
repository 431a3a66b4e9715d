"""Training and testing the runs of a table, one after the other."""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fewstep.evaluation import evaluate
from fewstep.experiments.costs import seconds_per_iteration
from fewstep.experiments.curves import save_curve
from fewstep.experiments.plan import PlannedRun
from fewstep.experiments.runs import Run
from fewstep.experiments.schedule import seconds_to_start
from fewstep.experiments.training import Training
from fewstep.training import RunFolder
from fewstep.training.checkpoint import write_whole
from fewstep.training.deadline import seconds_of_test
from fewstep.training.processor import processor


def reproduce(
    missing: Iterable[PlannedRun],
    results: Path,
    training: Training,
    progress: bool = True,
    deadline: float | None = None,
    unfinished: Path | None = None,
) -> dict[str, Exception]:
    """Trains and tests runs, and writes ``EXPERIMENT-seedS.json`` and ``curves/EXPERIMENT-seedS.jsonl`` of each.

    A run that was begun is resumed, and its result is written as soon as it is done. If a run fails, the others are
    trained all the same.

    Args:
        missing: runs, as [`missing_runs`][fewstep.experiments.plan.missing_runs] returns them.
        results: folder of the results.
        training: how to train.
        progress: show progress bars.
        deadline: a time of ``time.monotonic()`` by which training and tests end; saving comes after it. Runs that
            would not finish an iteration by then are not begun.
        unfinished: folder of runs that are not at their end. With a deadline, a run that is cut is copied there, ready
            to be resumed, and its learning curve to the results; one that has reached its end is removed from there.

    Returns:
        The errors, by run.

    Raises:
        TrainingInterrupted: Ctrl-C; everything was saved.
    """
    failures: dict[str, Exception] = {}
    for run in missing:
        if deadline is not None and time.monotonic() + seconds_to_start(run, training) > deadline:
            continue
        try:
            _train_and_test(run, results, training, progress, deadline, unfinished)
        except Exception as error:
            failures[run.name] = error
            print(f"{run.name} failed; the other runs continue: {error}", file=sys.stderr)
            if os.environ.get("FEWSTEP_TRACEBACK"):
                traceback.print_exc()
    return failures


def _train_and_test(
    planned: PlannedRun,
    results: Path,
    training: Training,
    progress: bool,
    deadline: float | None,
    unfinished: Path | None,
) -> None:
    run = _opened(planned, replace(training, seed=planned.seed, **planned.row.training))
    tested = False
    try:
        if planned.left:  # else another process may be training the run, whose files must not be changed
            run.train(progress, until=planned.iterations, deadline=deadline)
        if run.iterations() >= planned.iterations:
            tested = deadline is None or time.monotonic() + _seconds_of_test(run, planned, deadline) < deadline
            if tested:
                _test(run, planned, results)
            else:
                print(f"{planned.name} is at its end, and there is no time left to test it; the next call does.")
    finally:  # also of one that failed or was interrupted
        if unfinished is not None and tested and run.iterations() >= run.experiment.iterations:
            shutil.rmtree(unfinished / planned.name, ignore_errors=True)
        elif unfinished is not None and deadline is not None and run.folder.has_checkpoint():
            save_curve(run.folder.metrics(), results / "curves" / f"{planned.name}.jsonl")
            run.folder.copy_to(unfinished / planned.name)


def _test(run: Run, planned: PlannedRun, results: Path) -> None:
    tested = run.evaluate()
    save_curve(run.folder.metrics(), results / "curves" / f"{planned.name}.jsonl")
    write_whole(results / f"{planned.name}.json", tested["file"].read_bytes())


def _opened(planned: PlannedRun, training: Training) -> Run:
    """The run folder: a new one, the one that is there, or a copy of the one where it was begun."""
    if RunFolder(planned.folder).config_file.exists():
        run = _of_the_row(planned, planned.folder, training)
    elif planned.copied_from is None:
        return Run.create(planned.row.name, planned.row.config, training, planned.folder)
    if planned.copied_from is not None:
        _of_the_row(planned, planned.copied_from, training)
        RunFolder(planned.copied_from).copy_to(planned.folder)
        run = _of_the_row(planned, planned.folder, training)
    return run


def _of_the_row(planned: PlannedRun, folder: Path, training: Training) -> Run:
    run = Run(folder, training.device, training.threads)
    if (run.name, run.experiment, run.training.seed) != (planned.row.name, planned.row.config, planned.seed):
        raise ValueError(
            f"{folder} holds a run with other settings than {planned.row.name}; remove it, or use another "
            f"{'--runs' if folder == planned.folder else '--unfinished'}."
        )
    return run


def _seconds_of_test(run: Run, planned: PlannedRun, deadline: float) -> float:
    """About how long the test of a run takes, with the costs that are measured then."""
    state, learner, experiment = run.folder.load(), run.load_learner(), run.experiment
    tasks: int = experiment.test_task_count
    times = 1 + len(planned.row.other_shots) + len(planned.row.other_norms)
    alone = 60 + tasks // 4  # those that are timed one by one take longer
    elsewhere = state.get("processors", [None])[-1] != processor(run.training.device)
    measured = 0.0  # six iterations, where the pace of training is not that of this processor, or compiled on a CPU
    if elsewhere or (run.training.compile and not run.training.on_gpu):
        measured = 7 * seconds_per_iteration(experiment, run.training, tasks=2)

    def test(few: int) -> None:
        evaluate(learner, experiment.test_source(), few, experiment.test_steps, experiment.metric)

    return measured + seconds_of_test(test, times * tasks + alone, deadline - measured)

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

from fewstep.evaluation import evaluate
from fewstep.experiments.costs import seconds_per_iteration
from fewstep.experiments.curves import save_curve
from fewstep.experiments.experiment import Training
from fewstep.experiments.plan import Planned
from fewstep.experiments.runs import Run
from fewstep.experiments.schedule import seconds_to_start
from fewstep.training import RunFolder
from fewstep.training.checkpoint import write_whole
from fewstep.training.deadline import seconds_of_test
from fewstep.training.processor import processor


def reproduce(
    planned: Iterable[Planned],
    results: Path,
    training: Training,
    progress: bool = True,
    deadline: float | None = None,
    unfinished: Path | None = None,
) -> dict[str, Exception]:
    """Trains and tests runs, and leaves ``EXPERIMENT-seedS.json`` and ``curves/EXPERIMENT-seedS.jsonl`` of each.

    A run that was begun goes on where it stopped; its result is there as soon as it is done. One that fails does not
    stop the others.

    Args:
        planned: as :func:`fewstep.experiments.plan.plan` gives them.
        results: folder of the results.
        training: how to train.
        progress: show progress bars.
        deadline: a time of ``time.monotonic()`` by which training and tests are to end; saving comes after it. Runs
            that would not do an iteration until then are not begun.
        unfinished: folder of runs that are not at their end. With a deadline a run that is cut is copied there, ready
            to go on, and its learning curve to the results; one that has reached its end is removed from there.

    Returns:
        What went wrong, by run.

    Raises:
        TrainingInterrupted: Ctrl-C; all was saved.
    """
    failures: dict[str, Exception] = {}
    for one in planned:
        if deadline is not None and time.monotonic() + seconds_to_start(one, training) > deadline:
            continue
        try:
            _train_and_test(one, results, training, progress, deadline, unfinished)
        except Exception as error:
            failures[one.name] = error
            print(f"{one.name} failed, and the others go on: {error}", file=sys.stderr)
            if os.environ.get("FEWSTEP_TRACEBACK"):
                traceback.print_exc()
    return failures


def _train_and_test(
    one: Planned, results: Path, training: Training, progress: bool, deadline: float | None, unfinished: Path | None
) -> None:
    run = _opened(one, replace(training, seed=one.seed, **one.row.training))
    tested = False
    try:
        if one.left:  # else another process may be going on with it, whose files are not to be touched
            run.train(progress, until=one.iterations, deadline=deadline)
        if run.iterations() >= one.iterations:
            tested = deadline is None or time.monotonic() + _seconds_of_test(run, one, deadline) < deadline
            if tested:
                _test(run, one, results)
            else:
                print(f"{one.name} is at its end, and there is no time left to test it; the next call does.")
    finally:  # also of one that failed or was interrupted
        if unfinished is not None and tested and run.iterations() >= run.experiment.iterations:
            shutil.rmtree(unfinished / one.name, ignore_errors=True)
        elif unfinished is not None and deadline is not None and run.folder.has_checkpoint():
            save_curve(run.folder.metrics(), results / "curves" / f"{one.name}.jsonl")
            run.folder.copy_to(unfinished / one.name)


def _test(run: Run, one: Planned, results: Path) -> None:
    others = tuple(k for k in one.row.other_shots if k != one.row.config.shots)
    run.evaluate(shots=others, norms=one.row.other_norms)
    save_curve(run.folder.metrics(), results / "curves" / f"{one.name}.jsonl")
    write_whole(results / f"{one.name}.json", run.folder.results_file.read_bytes())


def _opened(one: Planned, training: Training) -> Run:
    """The run folder, new, as it is there, or copied from where it was begun."""
    if RunFolder(one.folder).config_file.exists():
        run = _of_the_row(one, one.folder, training)
    elif one.taken_from is None:
        return Run.create(one.row.name, one.row.config, training, one.folder)
    if one.taken_from is not None:
        _of_the_row(one, one.taken_from, training)
        RunFolder(one.taken_from).copy_to(one.folder)
        run = _of_the_row(one, one.folder, training)
    return run


def _of_the_row(one: Planned, folder: Path, training: Training) -> Run:
    run = Run(folder, training.device, training.threads)
    if (run.name, run.experiment, run.training.seed) != (one.row.name, one.row.config, one.seed):
        raise ValueError(
            f"{folder} holds a run with other settings than {one.row.name}; remove it, or use another "
            f"{'--runs' if folder == one.folder else '--unfinished'}."
        )
    return run


def _seconds_of_test(run: Run, one: Planned, deadline: float) -> float:
    """About how long the test of a run takes, with the costs that are measured then."""
    state, learner, experiment = run.folder.load(), run.load_learner(), run.experiment
    tasks: int = getattr(experiment, "test_task_count", 600)
    times = 1 + len(one.row.other_shots) + len(one.row.other_norms)
    alone = 60 + tasks // 4  # those that are timed one by one take longer
    elsewhere = state.get("processors", [None])[-1] != processor(run.training.device)
    measured = 0.0  # six iterations, where the pace of training is not that of this processor, or compiled on a CPU
    if elsewhere or (run.training.compile and not run.training.on_gpu):
        measured = 7 * seconds_per_iteration(experiment, run.training, tasks=2)

    def test(few: int) -> None:
        evaluate(learner, experiment.test_source(), few, experiment.test_steps, experiment.metric)

    return measured + seconds_of_test(test, times * tasks + alone, deadline - measured)

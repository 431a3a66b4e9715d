"""Training and testing the rows of a table, one after the other."""

from __future__ import annotations

import os
import sys
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


def reproduce(
    planned: Iterable[Planned], results: Path, training: Training, progress: bool = True
) -> dict[str, Exception]:
    """Trains and tests runs, and leaves ``EXPERIMENT-seedS.json`` and ``curves/EXPERIMENT-seedS.jsonl`` of each.

    A run that was begun goes on where it stopped; its result is there as soon as it is done. One that fails does not
    stop the others.

    Args:
        planned: as :func:`fewstep.experiments.plan.plan` gives them.
        results: folder of the results.
        training: how to train.
        progress: show progress bars.

    Returns:
        What went wrong, by run.

    Raises:
        TrainingInterrupted: Ctrl-C; all was saved.
    """
    failures: dict[str, Exception] = {}
    for one in planned:
        try:
            _train_and_test(one, results, training, progress)
        except TrainingInterrupted as interrupt:
            words = f"{interrupt}\nOr give the same command again: it goes on with this run and those after it."
            raise TrainingInterrupted(words, interrupt.signal) from None
        except Exception as error:
            failures[one.name] = error
            print(f"{one.name} failed, and the others go on: {error}", file=sys.stderr)
            if os.environ.get("FEWSTEP_TRACEBACK"):
                traceback.print_exc()
    return failures


def _train_and_test(one: Planned, results: Path, training: Training, progress: bool) -> None:
    config = one.row.config
    training = replace(training, seed=one.seed, **one.row.training)
    if RunFolder(one.folder).config_file.exists():
        run = Run(one.folder, training.device, training.threads)
        if (run.name, run.experiment, run.training.seed) != (one.row.name, config, one.seed):
            raise ValueError(
                f"{one.folder} holds a run with other settings than {one.row.name}; remove it, or use another --runs."
            )
    else:
        run = Run.create(one.row.name, config, training, one.folder)
    if one.left:  # else another process may be going on with it, whose files are not to be touched
        run.train(progress, until=one.iterations)
    others = tuple(k for k in one.row.other_shots if k != config.shots)
    run.evaluate(shots=others, norms=one.row.other_norms)
    save_curve(run.folder.metrics(), results / "curves" / f"{one.name}.jsonl")
    write_whole(results / f"{one.name}.json", run.folder.results_file.read_bytes())

"""Runs under a time limit: which go first, and which of them fit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fewstep.experiments.plan import PlannedRun, seconds_left
from fewstep.experiments.training import Training
from fewstep.training import RunFolder
from fewstep.training.processor import processor


@dataclass(frozen=True)
class EstimatedRun:
    """A planned run with the time that it takes.

    Args:
        run: the run.
        seconds: about how long its training takes, with the validations where their time is known; ``None`` if unknown.
        start: about how long it takes before its second iteration.
        reason: why its time is unknown.
    """

    run: PlannedRun
    seconds: float | None
    start: float
    reason: str = ""


def estimated(runs: Iterable[PlannedRun], training: Training, until: float | None = None) -> list[EstimatedRun]:
    """The times of runs. Nothing is measured after ``until``, a time of ``time.monotonic()``."""
    times = []
    for run in runs:
        left = seconds_left(run, training, until is None or time.monotonic() < until)
        seconds = None if isinstance(left, str) else left + _seconds_of_validations(run, training)
        times.append(EstimatedRun(run, seconds, seconds_to_start(run, training), left if isinstance(left, str) else ""))
    return times


def by_paper_and_work(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """Runs for which a paper prints a number first, and of these the least work first."""
    return sorted(runs, key=lambda run: (not run.row.paper, run.work))


def by_paper_and_time(runs: Sequence[EstimatedRun]) -> list[EstimatedRun]:
    """Runs for which a paper prints a number first, and of these the least time first.

    A time that is unknown is estimated from the work, at the speed of the other runs.
    """
    known = [(one.seconds, one.run.work) for one in runs if one.seconds]
    speed = statistics.median(seconds / work for seconds, work in known) if known else 1.0

    def key(one: EstimatedRun) -> tuple[bool, float]:
        return not one.run.row.paper, speed * one.run.work if one.seconds is None else one.seconds

    return sorted(runs, key=key)


def what_fits(runs: Iterable[EstimatedRun], seconds: float) -> list[str]:
    """In words, how far each run comes if they are trained in this order for this many seconds."""
    words, known = [], True
    for one in runs:
        trains = max(0.0, seconds - one.start)
        if trains == 0:
            words.append("no")
        elif one.seconds is None or not known:
            known = False
            words.append("?")
        elif one.seconds <= trains:
            words.append("whole")
            seconds = trains - one.seconds
        else:
            words.append(f"to about {one.run.done + round(one.run.left * trains / one.seconds):,}")
            seconds = 0.0
    return words


def seconds_to_start(run: PlannedRun, training: Training) -> float:
    """About how long it takes until a run has done an iteration: data, network, compilation; rather too long.

    It is the time of the last start of this run on this processor, or else estimated from the inner steps that are
    compiled.
    """
    if run.left == 0:
        return 5.0
    known = _noted_here(run, training).get("starting_seconds")
    if known:
        return 5.0 + 1.2 * float(known)
    own, config = replace(training, **run.row.training), run.row.config
    steps = max(1, config.method.steps)
    if own.on_gpu:
        fuses = own.compiles(config.iterations) is True
        return 40.0 + 30.0 * steps if fuses else 10.0 + 5.0 * steps
    return 20.0 + 5.0 * steps if own.compile else 5.0


def _seconds_of_validations(run: PlannedRun, training: Training) -> float:
    every = run.row.training.get("validate_every", training.validate_every)
    number = run.iterations // every - run.done // every + (run.iterations % every > 0)
    return number * float(_noted_here(run, training).get("latest_validation_seconds", 0.0)) if run.left else 0.0


def _noted_here(run: PlannedRun, training: Training) -> dict[str, Any]:
    """The notes in the checkpoint of a run, if it was last trained on this processor."""
    if not run.done:
        return {}
    state = RunFolder(run.copied_from or run.folder).load()
    return state if state.get("processors", [None])[-1] == processor(training.device) else {}

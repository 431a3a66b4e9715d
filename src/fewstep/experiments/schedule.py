"""Runs under a time limit: which go first, and what of them fits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fewstep.experiments.experiment import Training
from fewstep.experiments.plan import Planned, seconds_left
from fewstep.training import RunFolder
from fewstep.training.processor import processor


@dataclass(frozen=True)
class Timed:
    """A run that is planned, with its times.

    Args:
        planned: the run.
        seconds: about how long its training takes, with the validations where they are known; ``None`` if not known.
        start: about how long it takes before its second iteration.
    """

    planned: Planned
    seconds: float | None
    start: float


def timed(planned: Iterable[Planned], training: Training, until: float | None = None) -> list[Timed]:
    """The times of runs; those that are to be measured for it only before ``until``, a time of ``time.monotonic()``."""
    runs = []
    for one in planned:
        seconds = seconds_left(one, training, until is None or time.monotonic() < until)
        if seconds is not None:
            seconds += _seconds_of_validations(one, training)
        runs.append(Timed(one, seconds, seconds_to_start(one, training)))
    return runs


def by_paper_and_work(planned: Iterable[Planned]) -> list[Planned]:
    """Runs for which a paper prints a number first, and of these the least work first.

    Work is reckoned by the images that are left to go through a network, or by iterations where there are none.
    """
    return sorted(planned, key=lambda one: (not one.row.paper, _work(one)))


def by_paper_and_time(runs: Sequence[Timed]) -> list[Timed]:
    """Runs for which a paper prints a number first, and of these the least time first.

    A time that is not known is reckoned by the work, at the speed of the others.
    """
    worked = [(one.seconds, _work(one.planned)) for one in runs if one.seconds]
    speed = statistics.median(seconds / work for seconds, work in worked) if worked else 1.0

    def key(one: Timed) -> tuple[bool, float]:
        return not one.planned.row.paper, speed * _work(one.planned) if one.seconds is None else one.seconds

    return sorted(runs, key=key)


def what_fits(runs: Iterable[Timed], seconds: float) -> list[str]:
    """In words, how far each run comes if they are trained in this order for so many seconds."""
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
            words.append(f"to about {one.planned.done + round(one.planned.left * trains / one.seconds):,}")
            seconds = 0.0
    return words


def seconds_to_start(planned: Planned, training: Training) -> float:
    """About how long it takes until a run has done an iteration: data, network, compilation; rather too long.

    What it took when the run was last begun on this processor, else reckoned by the inner steps that are compiled.
    """
    if planned.left == 0:
        return 5.0
    known = _noted_here(planned, training).get("starting_seconds")
    if known:
        return 5.0 + 1.2 * float(known)
    own = replace(training, **planned.row.training)
    steps = max(1, getattr(planned.row.config, "steps", 1))
    if own.on_gpu:
        fuses = own.compiles(planned.row.config.iterations) is True
        return 40.0 + 30.0 * steps if fuses else 10.0 + 5.0 * steps
    return 20.0 + 5.0 * steps if own.compile else 5.0


def _seconds_of_validations(planned: Planned, training: Training) -> float:
    every = planned.row.training.get("validate_every", training.validate_every)
    number = planned.iterations // every - planned.done // every + (planned.iterations % every > 0)
    return number * float(_noted_here(planned, training).get("latest_validation_seconds", 0.0)) if planned.left else 0.0


def _noted_here(planned: Planned, training: Training) -> dict[str, Any]:
    """What the checkpoint of a run notes, if it was last trained on this processor."""
    if not planned.done:
        return {}
    state = RunFolder(planned.taken_from or planned.folder).load()
    return state if state.get("processors", [None])[-1] == processor(training.device) else {}


def _work(planned: Planned) -> float:
    config = planned.row.config
    ways, shots = getattr(config, "ways", 1), getattr(config, "shots", 1)
    queries, steps = getattr(config, "queries", 1), max(1, getattr(config, "steps", 1))
    pixels = 9 if getattr(config, "data", "") in ("mini-imagenet", "cifar-fs", "fc100") else 1  # 84² against 28²
    return float(planned.left * config.meta_batch * ways * (shots * steps + queries) * pixels)

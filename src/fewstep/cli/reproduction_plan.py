"""What `fewstep reproduce` will train, and what is left, as tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from fewstep.cli.tables import print_table
from fewstep.experiments.plan import PlannedRun
from fewstep.experiments.schedule import EstimatedRun, by_paper_and_time, estimated, what_fits
from fewstep.experiments.training import Training
from fewstep.training.progress import duration

_DONE = "All requested results exist."


def print_plan(runs: Sequence[EstimatedRun], deadline: float | None) -> None:
    """Prints the runs with the time that each takes, and how far each gets before a deadline.

    Args:
        runs: in the order of training.
        deadline: a time of `time.monotonic()`.
    """
    if not runs:
        print(_DONE)
        return
    rows = [_row(one.run, one.seconds) for one in runs]
    header = ["run", "iterations", "done", "training time"]
    if deadline is not None:
        header.append("before the limit")
        rows = [[*row, fits] for row, fits in zip(rows, what_fits(runs, deadline - time.monotonic()), strict=True)]
    known = [one.seconds for one in runs if one.seconds is not None]
    title = f"{len(runs)} run{'s' * (len(runs) > 1)} to train and evaluate"
    if known:
        of_them = "" if len(known) == len(runs) else f" {len(known)} of them"
        title += f"; training{of_them} takes about {duration(sum(known))} on this machine"
    print_table(title, header, rows)
    _print_reasons(runs)
    for folder in sorted({str(one.run.copied_from.parent) for one in runs if one.run.copied_from is not None}):
        print(f"Runs are copied from {folder} and resumed.")


def print_left(planned: Sequence[PlannedRun], training: Training, before: Sequence[EstimatedRun]) -> None:
    """Prints what is not done yet, with its time at the speed measured now, or otherwise at the start."""
    speeds = {one.run.name: one.seconds / one.run.left for one in before if one.seconds and one.run.left}
    left = [
        replace(one, seconds=one.run.left * speeds[one.run.name])
        if one.seconds is None and one.run.name in speeds
        else one
        for one in estimated(planned, training, until=time.monotonic())
    ]
    if not left:
        print(_DONE)
        return
    rows = [_row(one.run, one.seconds) for one in by_paper_and_time(left)]
    title = f"{len(left)} run{'s are' if len(left) > 1 else ' is'} left; the same command resumes"
    print_table(title, ["run", "iterations", "done", "training time"], rows)
    _print_reasons(left)


def _print_reasons(runs: Sequence[EstimatedRun]) -> None:
    """Prints why the times of some runs are unknown."""
    reasons: dict[str, list[str]] = {}
    for one in runs:
        if one.seconds is None:
            reasons.setdefault(one.reason, []).append(one.run.name)
    for reason, names in reasons.items():
        print(f"?: unknown for {', '.join(names)}: {reason}.")


def _row(one: PlannedRun, seconds: float | None) -> list[str]:
    own = one.row.config.iterations
    goal = f"{one.iterations:,}" + (f" of {own:,}" if one.iterations < own else "")
    takes = "evaluation only" if one.left == 0 else "?" if seconds is None else duration(seconds)
    return [one.name, goal, f"{one.done:,}", takes]

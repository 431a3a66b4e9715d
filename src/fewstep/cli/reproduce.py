"""``fewstep reproduce``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from fewstep.cli.parsing import parse
from fewstep.cli.tables import print_table
from fewstep.experiments.experiment import Training
from fewstep.experiments.plan import Planned, plan, rows_of
from fewstep.experiments.reproduce import reproduce as train_and_test
from fewstep.experiments.reproduction_figures import figures_of
from fewstep.experiments.results import TABLES, load_results
from fewstep.experiments.schedule import Timed, by_paper_and_time, by_paper_and_work, timed, what_fits
from fewstep.experiments.tables import page, tables_of
from fewstep.training.progress import duration, seconds_of

SAVING = 15.0
"""Seconds that are kept back of a time limit for saving, copying and the tables; less of a short one."""


@dataclass(frozen=True)
class Reproduce:
    """Train and test the rows of a table and set ours beside the papers'. Interrupted, it goes on later.

    First it says what it will train, and about how long that takes here. A row that fails does not stop the others.
    """

    table: tyro.conf.Positional[str] = "sinusoid"
    """Which table: sinusoid, omniglot, mini-imagenet, glyphs, navigation, cheetah or ant."""
    rows: str | None = None
    """Only the experiments whose names match this shell-style pattern, e.g. '*-5shot-*'. If not given, for omniglot and
    mini-imagenet the rows that a paper prints a number for, for the others all. '*' is all of them."""
    seeds: tuple[int, ...] = (0,)
    """One run for each of these seeds."""
    budget: int | None = None
    """Train each row for so many training tasks, or to its own end if that is sooner. More can be asked for later."""
    iterations: int | None = None
    """The same in outer iterations."""
    runs: Path = Path("runs/reproduction")
    """Where the run folders go. A run of the same name that is there goes on; if it has seen as many iterations as are
    asked for, it is only tested."""
    to: Path | None = None
    """Where EXPERIMENT-seedS.json, the learning curves, tables and figures go; RUNS/results if not given."""
    results: Path | None = None
    """Results that are there already: their rows are not trained again. Only read; those in TO count in any case. If
    not given, with --max-time reproduction/TABLE, if that exists. With --no-train, the results to show."""
    max_time: str | None = None
    """End by itself before so long has passed since the start of the command: 90s, 9m, 1.5h, or a number of seconds.
    Rows that a paper prints a number for go first, and of these those that take the least time. A run that is cut is
    left in TO/unfinished, ready to go on, with its learning curve in TO/curves."""
    unfinished: Path | None = None
    """Run folders to go on with where RUNS has none, or one of fewer iterations. Only read: they are copied. If not
    given, reproduction/TABLE/unfinished, if that exists. Those in TO/unfinished are gone on with in any case."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1, mps."""
    threads: int = 1
    """CPU threads; 0 leaves it to PyTorch."""
    compile: bool = True
    """Compile the meta-step on CPUs, in the rows that do not say otherwise."""
    fuse_from: int = 10_000
    """On CUDA devices, fuse the kernels of the meta-step in rows of at least so many iterations; they are recorded as a
    CUDA graph in any case."""
    dry_run: bool = False
    """Say what would be trained and about how long it would take, and train nothing."""
    train: bool = True
    """Train what is missing; with --no-train only show what results there are."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    reproduce(parse(Reproduce, "reproduce", words), began)


def reproduce(options: Reproduce, began: float) -> None:
    """Trains and tests what is missing, and shows the tables.

    Args:
        options: of the command.
        began: when it was given, a time of ``time.monotonic()``.
    """
    limit, unfinished = _checked(options)
    to = options.to or options.runs / "results"
    failures: dict[str, Exception] = {}
    planned: list[Planned] = []
    if options.train or options.dry_run:
        training = Training(
            device=options.device, threads=options.threads, compile=options.compile, fuse_from=options.fuse_from
        )
        training.check()
        planned = _planned(options, to, unfinished)
        deadline = None if limit is None else began + limit - min(SAVING, limit / 8)
        runs = _timed(planned, training, limit)
        _print_plan(runs, deadline)
        if options.dry_run:
            return
        writes = to / "unfinished"
        keeps = None if unfinished is not None and writes.resolve() == unfinished.resolve() else writes
        failures = train_and_test([one.planned for one in runs], to, training, deadline=deadline, unfinished=keeps)
        if limit is not None:
            print(f"\nStopped after {duration(time.monotonic() - began)} of {duration(limit)}.")
            _print_left(_planned(options, to, unfinished), training, runs)
    shown = (options.results or to) if not options.train else to
    _show(options, shown, to, figures=limit is None or time.monotonic() < began + limit - min(5.0, limit / 10))
    if failures:
        reasons = "".join(f"\n  {name}: {error}" for name, error in failures.items())
        raise RuntimeError(f"{len(failures)} of {len(planned)} runs failed:{reasons}")


def _checked(options: Reproduce) -> tuple[float | None, Path | None]:
    """The time limit in seconds, and the folder that runs are taken up from.

    Raises:
        ValueError: there is no such table, the limit is no duration, or a folder is wrong.
    """
    if options.table not in TABLES:
        raise ValueError(f"there is no table {options.table!r}; there are: {', '.join(TABLES)}.")
    try:
        limit = None if options.max_time is None else seconds_of(options.max_time)
    except ValueError as error:
        raise ValueError(f"--max-time: {error}") from None
    committed = Path("reproduction") / options.table / "unfinished"
    unfinished = options.unfinished or (committed if committed.is_dir() else None)
    for option, folder in (("--unfinished", options.unfinished), ("--results", options.results)):
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{option}: expected a folder that is there; got {folder}.")
    writes = (options.to or options.runs / "results") / "unfinished"
    if limit is not None and unfinished is not None and writes.resolve() == unfinished.resolve():
        raise ValueError(
            f"--to: runs that are cut would be written to {writes}, which they are taken up from and which is only "
            "read; give another --to."
        )
    return limit, unfinished


def _planned(options: Reproduce, to: Path, unfinished: Path | None) -> list[Planned]:
    rows = rows_of(options.table, options.rows)
    folders = [*([] if unfinished is None else [unfinished]), to / "unfinished"]
    committed = Path("reproduction") / options.table
    earlier = options.results or (committed if options.max_time is not None and committed.is_dir() else None)
    return plan(rows, options.seeds, options.runs, to, options.iterations, options.budget, folders, earlier)


def _timed(planned: list[Planned], training: Training, limit: float | None) -> list[Timed]:
    """In the order in which they are trained. Under a limit at most a tenth of it goes into measuring."""
    if limit is None:
        return timed(planned, training)
    return by_paper_and_time(timed(by_paper_and_work(planned), training, time.monotonic() + limit / 10))


def _print_plan(runs: Sequence[Timed], deadline: float | None) -> None:
    """The runs with the time that each takes, and how far it comes until a deadline."""
    if not runs:
        print("All that was asked for is there.")
        return
    rows = [_row(one.planned, one.seconds) for one in runs]
    header = ["run", "iterations", "done", "training takes"]
    if deadline is not None:
        header.append("in this time")
        rows = [[*row, fits] for row, fits in zip(rows, what_fits(runs, deadline - time.monotonic()), strict=True)]
    known = [one.seconds for one in runs if one.seconds is not None]
    title = f"{len(runs)} run{'s' * (len(runs) > 1)} to train and test"
    if known:
        of_them = "" if len(known) == len(runs) else f" {len(known)} of them"
        title += f"; training{of_them} takes about {duration(sum(known))} on this machine as it is now"
    print_table(title, header, rows)
    for folder in sorted({str(one.planned.taken_from.parent) for one in runs if one.planned.taken_from is not None}):
        print(f"Runs are taken up from {folder}, by copying.")


def _print_left(planned: Sequence[Planned], training: Training, before: Sequence[Timed]) -> None:
    """What is not done yet, at the speed that was measured now or else before."""
    speeds = {one.planned.name: one.seconds / one.planned.left for one in before if one.seconds and one.planned.left}
    left = [
        replace(one, seconds=one.planned.left * speeds[one.planned.name])
        if one.seconds is None and one.planned.name in speeds
        else one
        for one in timed(planned, training, until=time.monotonic())
    ]
    if not left:
        print("All that was asked for is there.")
        return
    rows = [_row(one.planned, one.seconds) for one in by_paper_and_time(left)]
    title = f"{len(left)} run{'s are' if len(left) > 1 else ' is'} left; the same command goes on"
    print_table(title, ["run", "iterations", "done", "training takes"], rows)


def _row(one: Planned, seconds: float | None) -> list[str]:
    own = one.row.config.iterations
    goal = f"{one.iterations:,}" + (f" of {own:,}" if one.iterations < own else "")
    takes = "only the test" if one.left == 0 else "?" if seconds is None else duration(seconds)
    return [one.name, goal, f"{one.done:,}", takes]


def _show(options: Reproduce, results: Path, to: Path, figures: bool) -> None:
    """The tables and figures of the results that there are."""
    found = load_results(results, options.table)
    if found:
        tables = tables_of(options.table, found)
        for title, table in tables.items():
            print_table(title, table[0], table[1:])
        to.mkdir(parents=True, exist_ok=True)
        (to / "table.md").write_text(page(tables))
        for file in (to / "table.md", *(figures_of(options.table, found, results, to) if figures else [])):
            print(f"Wrote {file}")
    elif not options.train:
        raise ValueError(f"there are no results of {options.table} in {results}; leave out --no-train to make them.")

"""``fewstep reproduce``."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fewstep.cli.errors import reason
from fewstep.cli.option_values import Argument
from fewstep.cli.parsing import parse
from fewstep.cli.reproduction_plan import print_left, print_plan
from fewstep.cli.run_folder import Hardware
from fewstep.cli.tables import print_table
from fewstep.experiments.option_types import Count, Number
from fewstep.experiments.plan import PlannedRun, missing_runs, rows_of
from fewstep.experiments.reproduce import reproduce as train_and_test
from fewstep.experiments.reproduction_figures import figures_of
from fewstep.experiments.results import TABLES, load_results
from fewstep.experiments.schedule import EstimatedRun, by_paper_and_time, by_paper_and_work, estimated
from fewstep.experiments.tables import page, tables_of
from fewstep.experiments.training import Training
from fewstep.report import write_table_report
from fewstep.training import TrainingInterrupted
from fewstep.training.progress import duration, seconds_of

SAVING = 15.0
"""Seconds of a time limit that are reserved for saving, copying and the tables; less of a short one."""


@dataclass(frozen=True)
class Reproduce:
    """Train and evaluate the rows of a paper's table, and print our numbers beside the paper's.

    First it prints what it will train, and about how long that takes on this machine. If a row fails, the others
    continue. To resume after an interruption, give the same command again.

    Examples:
        fewstep reproduce sinusoid --dry-run
        fewstep reproduce omniglot --rows '*-5way-1shot-*' --budget 100000
        fewstep reproduce omniglot --max-time 9m --device cuda --to out
    """

    table: Annotated[str, Argument] = "sinusoid"
    """The table: sinusoid, omniglot, mini-imagenet, glyphs, navigation, cheetah or ant."""
    rows: str | None = None
    """Only the experiments whose names match this shell-style pattern, such as '*-5shot-*'. If not given: for omniglot
    and mini-imagenet the rows for which a paper prints a number, for the other tables all rows. '*' is every row."""
    seeds: tuple[Number, ...] = (0,)
    """One run for each of these seeds."""
    budget: Count | None = None
    """Train each row for this number of training tasks, at most to its own end. A later call can train further."""
    iterations: Count | None = None
    """Train each row for this number of outer iterations, at most to its own end. Instead of --budget."""
    runs: Path = Path("runs/reproduction")
    """The folder of the run folders. A run that exists is resumed; if it is long enough, it is only evaluated."""
    to: Path | None = None
    """The folder for EXPERIMENT-seedS.json, learning curves, tables and figures. If not given, RUNS/results."""
    results: Path | None = None
    """A folder of earlier results, which is only read: their rows are not trained again. Results in TO always count. If
    not given, reproduction/TABLE with --max-time, if it exists. With --no-train, the results to show."""
    max_time: str | None = None
    """Stop before this time has passed since the start of the command: 90s, 9m, 1.5h, or a number of seconds. Rows for
    which a paper prints a number are trained first, the shortest ones first. An unfinished run is saved in
    TO/unfinished, from where it can be resumed, and its learning curve in TO/curves."""
    unfinished: Path | None = None
    """A folder of run folders to resume where RUNS has none, or one with fewer iterations. They are copied. If not
    given, reproduction/TABLE/unfinished, if it exists. Runs in TO/unfinished are always resumed."""
    hardware: Hardware = field(default_factory=lambda: Hardware("cpu", 1))
    compile: bool = True
    """Compile the meta-step on CPUs, in rows that do not set this themselves."""
    fuse_from: Number = 10_000
    """On CUDA devices, fuse the kernels of the meta-step in rows of at least this number of iterations. The meta-step
    is recorded as a CUDA graph in all rows."""
    dry_run: bool = False
    """Print what would be trained and about how long it would take, and train nothing."""
    train: bool = True
    """Train what is missing. With --no-train, only show the results that exist."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    reproduce(parse(Reproduce, "reproduce", words), began)


def reproduce(options: Reproduce, began: float) -> None:
    """Trains and evaluates what is missing, and prints the tables.

    Args:
        options: the options of the command.
        began: the start of the command, a time of `time.monotonic()`.

    Raises:
        ValueError: options are wrong or do not go together.
        TrainingInterrupted: Ctrl-C; all was saved.
        RuntimeError: runs failed; the others were completed.
    """
    limit, unfinished = _checked(options)
    to = options.to or options.runs / "results"
    failures: dict[str, Exception] = {}
    planned: list[PlannedRun] = []
    if options.train or options.dry_run:
        training = Training(
            **vars(options.hardware),
            compile=options.compile,
            fuse_from=options.fuse_from,
        )
        training.check()
        planned = _planned(options, to, unfinished)
        deadline = None if limit is None else began + limit - min(SAVING, limit / 8)
        runs = _timed(planned, training, limit)
        print_plan(runs, deadline)
        if options.dry_run:
            return
        writes = to / "unfinished"
        keeps = None if unfinished is not None and writes.resolve() == unfinished.resolve() else writes
        try:
            failures = train_and_test([one.run for one in runs], to, training, deadline=deadline, unfinished=keeps)
        except TrainingInterrupted as interrupt:
            raise interrupt.resumed_by("To resume, give the same command again.") from None
        if limit is not None:
            print(f"\nStopped after {duration(time.monotonic() - began)} of {duration(limit)}.")
            print_left(_planned(options, to, unfinished), training, runs)
    shown = (options.results or to) if not options.train else to
    _show(options, shown, to, limit is None or time.monotonic() < began + limit - min(5.0, limit / 10), limit is None)
    if failures:
        reasons = "".join(f"\n  {name}: {reason(error)}" for name, error in failures.items())
        raise RuntimeError(f"{len(failures)} of {len(planned)} runs failed:{reasons}")


def _checked(options: Reproduce) -> tuple[float | None, Path | None]:
    """The time limit in seconds, and the folder of runs to resume.

    Raises:
        ValueError: the table does not exist, the limit is not a duration, or a folder is wrong.
    """
    if options.table not in TABLES:
        raise ValueError(f"there is no table {options.table!r}. The tables are {', '.join(TABLES)}.")
    try:
        limit = None if options.max_time is None else seconds_of(options.max_time)
    except ValueError as error:
        raise ValueError(f"--max-time: {error}") from None
    committed = Path("reproduction") / options.table / "unfinished"
    unfinished = options.unfinished or (committed if committed.is_dir() else None)
    for option, folder in (("--unfinished", options.unfinished), ("--results", options.results)):
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{option}: expected an existing folder; got {folder}.")
    writes = (options.to or options.runs / "results") / "unfinished"
    if limit is not None and unfinished is not None and writes.resolve() == unfinished.resolve():
        raise ValueError(
            f"--to: unfinished runs would be written to {writes}, which is the folder of --unfinished and only read. "
            "Give another --to."
        )
    return limit, unfinished


def _planned(options: Reproduce, to: Path, unfinished: Path | None) -> list[PlannedRun]:
    rows = rows_of(options.table, options.rows)
    folders = [*([] if unfinished is None else [unfinished]), to / "unfinished"]
    committed = Path("reproduction") / options.table
    earlier = options.results or (committed if options.max_time is not None and committed.is_dir() else None)
    return missing_runs(rows, options.seeds, options.runs, to, options.iterations, options.budget, folders, earlier)


def _timed(planned: list[PlannedRun], training: Training, limit: float | None) -> list[EstimatedRun]:
    """In the order of training. With a limit, at most a tenth of it is spent on measuring."""
    if limit is None:
        return estimated(planned, training)
    return by_paper_and_time(estimated(by_paper_and_work(planned), training, time.monotonic() + limit / 10))


def _show(options: Reproduce, results: Path, to: Path, figures: bool, report: bool) -> None:
    """Prints the tables, and writes tables, figures and the report, of the results that exist."""
    found = load_results(results, options.table)
    if found:
        tables = tables_of(options.table, found)
        for title, table in tables.items():
            print_table(title, table[0], table[1:])
        to.mkdir(parents=True, exist_ok=True)
        (to / "table.md").write_text(page(tables))
        for file in (to / "table.md", *(figures_of(options.table, found, results, to) if figures else [])):
            print(f"Wrote {file}")
        if report:
            print(f"Wrote {write_table_report(results, options.table, to / 'report.html')}")
    elif not options.train:
        raise ValueError(f"there are no results of {options.table} in {results}. Train them: leave out --no-train.")

"""The command ``fewstep reproduce``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from fewstep.command_options import Reproduce
from fewstep.commands import print_table
from fewstep.experiments.experiment import Training
from fewstep.experiments.plan import Planned, by_paper_and_work, plan, rows_of, seconds_left
from fewstep.experiments.reproduce import reproduce as train_and_test
from fewstep.experiments.reproduction_figures import figures_of
from fewstep.experiments.results import TABLES, load_results
from fewstep.experiments.tables import page, tables_of
from fewstep.training.progress import duration, seconds_of


def reproduce(options: Reproduce, began: float) -> None:
    """Trains and tests what is missing, and shows the tables."""
    if options.table not in TABLES:
        raise ValueError(f"there is no table {options.table!r}; there are: {', '.join(TABLES)}.")
    deadline = None if options.max_time is None else began + seconds_of(options.max_time)
    results = options.to or options.runs / "results"
    planned: list[Planned] = []
    failures: dict[str, Exception] = {}
    if options.train or options.dry_run:
        training = Training(
            device=options.device, threads=options.threads, compile=options.compile, fuse_from=options.fuse_from
        )
        training.check()
        planned = _planned(options, results)
        limit = None if deadline is None else deadline - began
        _print_plan(planned, training, measure=limit is None or options.dry_run, limit=limit)
        if options.dry_run:
            return
        failures = train_and_test(planned, results, training, deadline=deadline)
        if deadline is not None:
            print(
                f"\nStopped after {duration(time.monotonic() - began)} of {duration(deadline - began)}. What is left:"
            )
            _print_plan(_planned(options, results), training, measure=False)
    _show(options, results)
    if failures:
        reasons = "".join(f"\n  {name}: {error}" for name, error in failures.items())
        raise RuntimeError(f"{len(failures)} of {len(planned)} runs failed:{reasons}")


def _planned(options: Reproduce, results: Path) -> list[Planned]:
    rows = rows_of(options.table, options.rows)
    unfinished = options.unfinished or Path("reproduction") / options.table / "unfinished"
    planned = plan(rows, options.seeds, options.runs, results, options.iterations, options.budget, unfinished)
    return planned if options.max_time is None else by_paper_and_work(planned)


def _show(options: Reproduce, results: Path) -> None:
    """The tables and figures of the results that there are."""
    found = load_results(results, options.table)
    if found:
        tables = tables_of(options.table, found)
        for title, table in tables.items():
            print_table(title, table[0], table[1:])
        (results / "table.md").write_text(page(tables))
        for file in (results / "table.md", *figures_of(options.table, found, results, results)):
            print(f"Wrote {file}")
    elif not options.train:
        raise ValueError(f"there are no results of {options.table} in {results}; leave out --no-train to make them.")


def _print_plan(planned: Sequence[Planned], training: Training, measure: bool, limit: float | None = None) -> None:
    """The runs with the time that each takes, and which of them fit into a limit, as far as that is known."""
    if not planned:
        print("All that was asked for is there.")
        return
    rows, total = [], 0.0
    for one in planned:
        seconds = seconds_left(one, training, measure)
        before, total = total, total + (seconds or 0.0)
        own = one.row.config.iterations
        goal = f"{one.iterations:,}" + (f" of {own:,}" if one.iterations < own else "")
        rows.append([one.name, goal, f"{one.done:,}", "?" if seconds is None else duration(seconds)])
        if limit is not None:
            fits = "whole" if total < limit else "in part" if before < limit else "no"
            rows[-1].append("?" if seconds is None and before < limit else fits)
    known = len([row for row in rows if row[3] != "?"])
    title = f"{len(planned)} run{'s' * (len(planned) > 1)} to train and test"
    if known:
        of_them = "" if known == len(planned) else f" {known} of them"
        title += f"; training{of_them} takes about {duration(total)} on this machine as it is now"
    header = ["run", "iterations", "done", "training takes", *([] if limit is None else ["fits"])]
    print_table(title, header, rows)

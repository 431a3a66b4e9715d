"""Which runs a table still needs, in which order, and about how long each takes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from fewstep.experiments.catalogue import EXPERIMENTS
from fewstep.experiments.costs import seconds_per_iteration
from fewstep.experiments.result_files import read_results
from fewstep.experiments.row import Row
from fewstep.experiments.training import Training
from fewstep.training import RunFolder
from fewstep.training.processor import processor


def rows_of(table: str, pattern: str | None = None) -> list[Row]:
    """The rows of a table whose names match a shell-style pattern.

    Without a pattern, the rows that are trained by default: of Omniglot and miniImageNet those that a paper prints a
    number for, of the other tables all.

    Raises:
        ValueError: no row matches.
    """
    rows = [row for row in EXPERIMENTS.values() if row.table == table]
    if pattern is None:
        return [row for row in rows if row.by_default]
    chosen = [row for row in rows if fnmatchcase(row.name, pattern)]
    if not chosen:
        raise ValueError(f"no experiment of {table} matches {pattern!r}; see `fewstep list '{table}-*'`.")
    return chosen


@dataclass(frozen=True)
class PlannedRun:
    """A run that has to be trained, from the start or further.

    Args:
        row: its experiment.
        seed: its seed.
        iterations: outer iterations to reach.
        done: iterations that it has done.
        folder: the run folder.
        copied_from: the folder that it is copied from first, if it was begun elsewhere.
    """

    row: Row
    seed: int
    iterations: int
    done: int
    folder: Path
    copied_from: Path | None = None

    @property
    def name(self) -> str:
        """Experiment and seed."""
        return f"{self.row.name}-seed{self.seed}"

    @property
    def left(self) -> int:
        """Iterations to train."""
        return max(0, self.iterations - self.done)

    @property
    def work(self) -> float:
        """Examples that go through a network in the iterations that are left."""
        return self.left * self.row.config.work_per_iteration


def missing_runs(
    rows: Iterable[Row],
    seeds: Sequence[int],
    runs: Path,
    results: Path,
    iterations: int | None = None,
    budget: int | None = None,
    unfinished: Sequence[Path] = (),
    earlier: Path | None = None,
) -> list[PlannedRun]:
    """The runs whose result is missing, or has fewer iterations than are asked for.

    Runs that were begun come first, then every row with the first seed, then with the next: interrupted runs are
    resumed, and the table is full as early as possible.

    Args:
        rows: what to reproduce.
        seeds: one run each.
        runs: folder of the run folders.
        results: folder of the results.
        iterations: train each row up to this iteration, at most its own number.
        budget: the same in training tasks.
        unfinished: folders of run folders to resume where ``runs`` has none, or one of fewer iterations.
        earlier: another folder of results, which count as well.

    Raises:
        ValueError: both iterations and budget are given, or one is less than 1.
    """
    if iterations is not None and budget is not None:
        raise ValueError("give either iterations or a budget of training tasks, not both.")
    if min(iterations or 1, budget or 1) < 1 or 0 in (iterations, budget):
        raise ValueError(f"iterations and budget must be at least 1; got {iterations if budget is None else budget}.")
    missing = []
    for seed in seeds:
        for row in rows:
            config = row.config
            asked = iterations if budget is None else max(1, round(budget / config.tasks_per_iteration))
            wanted = config.iterations if asked is None else min(asked, config.iterations)
            name = f"{row.name}-seed{seed}"
            if max(_tested(folder / f"{name}.json") for folder in (results, earlier or results)) < wanted:
                folders = [runs / name, *(folder / name for folder in unfinished)]
                furthest = max(folders, key=_done)  # of equal ones the first
                copied_from = None if furthest == folders[0] else furthest
                missing.append(PlannedRun(row, seed, wanted, _done(furthest), folders[0], copied_from))
    return sorted(missing, key=lambda run: run.done == 0)


def _tested(result: Path) -> int:
    return int(read_results(result)["iterations"]) if result.is_file() else 0


def _done(folder: Path) -> int:
    run = RunFolder(folder)
    try:
        return int(run.load()["iteration"]) if run.has_checkpoint() else 0
    except ValueError:  # damaged: resuming the run reports it
        return 0


def seconds_left(run: PlannedRun, training: Training, measure: bool = True) -> float | str:
    """About how long the training of a run takes on this machine; the reason, where that is not known.

    It is estimated from the time that its iterations took so far. For a run that was not begun, or on another
    processor, a few tasks are measured.

    Args:
        run: the run.
        training: how to train it.
        measure: measure a few tasks where nothing is known.
    """
    if run.left == 0:
        return 0.0
    if run.done:
        state, here = RunFolder(run.copied_from or run.folder).load(), processor(training.device)
        if state.get("processors", [here])[-1] == here and state.get("paces"):
            return float(run.left * statistics.median(state["paces"]))
        if state.get("processors", [here]) == [here]:
            return float(run.left * state["seconds"] / run.done)
    own = replace(training, **run.row.training)
    if own.compile and not own.on_gpu:
        return "its meta-step is compiled first, and its speed is known only then"
    if not measure:
        return "it is not measured, to keep within the time limit"
    try:
        if own.on_gpu:  # a few tasks would not fill it
            return run.left * seconds_per_iteration(run.row.config, own, iterations=5)
        return run.left * seconds_per_iteration(run.row.config, own, tasks=8)
    except Exception as error:  # training it will fail as well, and then the message is shown whole
        return f"measuring it failed: {(str(error).splitlines() or [type(error).__name__])[0]}"

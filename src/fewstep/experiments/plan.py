"""What there is to train for a table, in which order, and about how long it will take."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from fewstep.experiments.costs import seconds_per_iteration
from fewstep.experiments.experiment import Row, Training
from fewstep.experiments.runs import EXPERIMENTS
from fewstep.training import RunFolder
from fewstep.training.processor import processor

_BY_DEFAULT: dict[str, Callable[[Row], bool]] = {
    "omniglot": lambda row: bool(row.paper),
    "mini-imagenet": lambda row: bool(row.paper),
    "glyphs": lambda row: row.name != "glyphs-5way-1shot",  # which is glyphs-5way-1shot-maml
}


def rows_of(table: str, pattern: str | None = None) -> list[Row]:
    """The rows of a table whose names match a shell-style pattern.

    Without a pattern all rows, but of Omniglot and miniImageNet only those that a paper prints a number for.

    Raises:
        ValueError: no row matches.
    """
    rows = [row for name, row in EXPERIMENTS.items() if name.startswith(f"{table}-")]
    if pattern is None:
        return [row for row in rows if table not in _BY_DEFAULT or _BY_DEFAULT[table](row)]
    chosen = [row for row in rows if fnmatchcase(row.name, pattern)]
    if not chosen:
        raise ValueError(f"no experiment of {table} matches {pattern!r}; see `fewstep list '{table}-*'`.")
    return chosen


@dataclass(frozen=True)
class Planned:
    """A run that is to be trained, further or from the start.

    Args:
        row: its experiment.
        seed: its seed.
        iterations: outer iterations to reach.
        done: iterations that it has seen.
        folder: the run folder.
        taken_from: the folder that it is to be copied from first, if it was begun elsewhere.
    """

    row: Row
    seed: int
    iterations: int
    done: int
    folder: Path
    taken_from: Path | None = None

    @property
    def name(self) -> str:
        """Experiment and seed."""
        return f"{self.row.name}-seed{self.seed}"

    @property
    def left(self) -> int:
        """Iterations to train."""
        return max(0, self.iterations - self.done)


def plan(
    rows: Iterable[Row],
    seeds: Sequence[int],
    runs: Path,
    results: Path,
    iterations: int | None = None,
    budget: int | None = None,
    unfinished: Sequence[Path] = (),
    earlier: Path | None = None,
) -> list[Planned]:
    """The runs whose result is missing, or is of fewer iterations than asked for.

    Those that were begun come first, then every row with the first seed, then with the next: what is interrupted is
    gone on with, and the table is full as early as possible.

    Args:
        rows: what to reproduce.
        seeds: one run each.
        runs: folder of the run folders.
        results: folder of the results.
        iterations: train each row up to here, at most its own number.
        budget: the same in training tasks.
        unfinished: folders of run folders to go on with where ``runs`` has none, or one of fewer iterations.
        earlier: another folder of results, which count as well.

    Raises:
        ValueError: both iterations and budget are given, or less than one.
    """
    if iterations is not None and budget is not None:
        raise ValueError("give either iterations or a budget of training tasks, not both.")
    if min(iterations or 1, budget or 1) < 1 or 0 in (iterations, budget):
        raise ValueError(f"iterations and budget must be at least 1; got {iterations if budget is None else budget}.")
    planned = []
    for seed in seeds:
        for row in rows:
            config = row.config
            asked = iterations if budget is None else max(1, round(budget / config.tasks_per_iteration))
            wanted = config.iterations if asked is None else min(asked, config.iterations)
            name = f"{row.name}-seed{seed}"
            if max(_tested(folder / f"{name}.json") for folder in (results, earlier or results)) < wanted:
                places = [runs / name, *(folder / name for folder in unfinished)]
                furthest = max(places, key=_done)  # of equal ones the first
                taken_from = None if furthest == places[0] else furthest
                planned.append(Planned(row, seed, wanted, _done(furthest), places[0], taken_from))
    return sorted(planned, key=lambda one: one.done == 0)


def _tested(result: Path) -> int:
    return int(json.loads(result.read_text())["iterations"]) if result.is_file() else 0


def _done(folder: Path) -> int:
    run = RunFolder(folder)
    try:
        return int(run.load()["iteration"]) if run.has_checkpoint() else 0
    except ValueError:  # damaged: going on with the run will say so
        return 0


def seconds_left(planned: Planned, training: Training, measure: bool = True) -> float | None:
    """About how long the training of a run will take on this machine; ``None`` if that cannot be told.

    From the time that its iterations took so far; for a run that was not begun, or on another processor, from a few
    tasks, unless nothing is to be measured. What will be compiled is not guessed at.
    """
    if planned.left == 0:
        return 0.0
    if planned.done:
        state, here = RunFolder(planned.taken_from or planned.folder).load(), processor(training.device)
        if state.get("processors", [here])[-1] == here and state.get("paces"):
            return float(planned.left * statistics.median(state["paces"]))
        if state.get("processors", [here]) == [here]:
            return float(planned.left * state["seconds"] / planned.done)
    own = replace(training, **planned.row.training)
    if not measure or (own.compile and not own.on_gpu):
        return None
    try:
        if own.on_gpu:  # a few tasks would not fill it
            return planned.left * seconds_per_iteration(planned.row.config, own, iterations=5)
        return planned.left * seconds_per_iteration(planned.row.config, own, tasks=8)
    except Exception:  # whatever is wrong with this row, training it will say
        return None

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
    unfinished: Path | None = None,
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
        unfinished: folder of run folders to go on with where ``runs`` has none, or one of fewer iterations.

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
            folder = runs / f"{row.name}-seed{seed}"
            result = results / f"{row.name}-seed{seed}.json"
            if not result.is_file() or json.loads(result.read_text())["iterations"] < wanted:
                done, elsewhere = _done(folder), None if unfinished is None else unfinished / folder.name
                if elsewhere is not None and _done(elsewhere) > done:
                    planned.append(Planned(row, seed, wanted, _done(elsewhere), folder, elsewhere))
                else:
                    planned.append(Planned(row, seed, wanted, done, folder))
    return sorted(planned, key=lambda one: one.done == 0)


def by_paper_and_work(planned: Iterable[Planned]) -> list[Planned]:
    """Runs for which a paper prints a number first, and of these the least work first.

    Work is reckoned by the images that are left to go through a network, or by iterations where there are none.
    """
    return sorted(planned, key=lambda one: (not one.row.paper, _work(one)))


def _work(planned: Planned) -> float:
    config = planned.row.config
    ways, shots = getattr(config, "ways", 1), getattr(config, "shots", 1)
    queries, steps = getattr(config, "queries", 1), max(1, getattr(config, "steps", 1))
    pixels = 9 if getattr(config, "data", "") in ("mini-imagenet", "cifar-fs", "fc100") else 1  # 84² against 28²
    return float(planned.left * config.meta_batch * ways * (shots * steps + queries) * pixels)


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
        return planned.left * seconds_per_iteration(planned.row.config, own, tasks=8)
    except Exception:  # whatever is wrong with this row, training it will say
        return None

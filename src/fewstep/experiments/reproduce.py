"""Training and testing every row of a paper's table, and setting ours beside it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fewstep.experiments.experiment import Row, Training
from fewstep.experiments.runs import EXPERIMENTS, Run
from fewstep.training import RunFolder

TABLES = {"sinusoid": "sinusoid-", "omniglot": "omniglot-"}
"""What can be reproduced, and how its experiments' names begin."""


def rows_of(table: str, pattern: str = "*") -> list[Row]:
    """The rows of a table whose names match a shell-style pattern."""
    rows = [row for name, row in EXPERIMENTS.items() if name.startswith(TABLES[table]) and fnmatchcase(name, pattern)]
    if not rows:
        raise ValueError(f"No experiment of {table} matches {pattern!r}; see `fewstep list`.")
    return rows


def reproduce(
    rows: Iterable[Row],
    seeds: Sequence[int],
    runs: Path,
    results: Path,
    training: Training,
    iterations: int | None = None,
    progress: bool = True,
) -> None:
    """Trains and tests each row for each seed, and leaves ``results/EXPERIMENT-seedS.json``.

    A row that has its result is skipped, and one that was interrupted goes on where it stopped.

    Args:
        rows: what to reproduce.
        seeds: one run each.
        runs: folder of the run folders.
        results: folder of the results.
        training: how to train.
        iterations: instead of each row's own number.
        progress: show progress bars.
    """
    for row in rows:
        for seed in seeds:
            name = f"{row.name}-seed{seed}"
            result = results / f"{name}.json"
            config = row.config if iterations is None else replace(row.config, iterations=iterations)
            if result.is_file() and json.loads(result.read_text())["iterations"] >= config.iterations:
                continue
            folder = runs / name
            if RunFolder(folder).config_file.exists():
                run = Run(folder)
                if run.experiment != config:
                    raise ValueError(
                        f"{folder} holds a run with other settings than asked for; remove it, or use another --runs."
                    )
            else:
                own = replace(training, seed=seed, **row.training)
                run = Run.create(row.name, config, own, folder)
            run.train(progress)
            others = tuple(k for k in row.other_shots if k != config.shots)
            run.evaluate(shots=others)
            results.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.folder.results_file, result)


@dataclass(frozen=True)
class Found:
    """All runs of one experiment.

    Args:
        name: the experiment.
        runs: the contents of their ``results.json``.
    """

    name: str
    runs: list[dict[str, Any]]

    @property
    def seeds(self) -> list[int]:
        """Seeds that were run."""
        return sorted(run["seed"] for run in self.runs)

    @property
    def iterations(self) -> int:
        """Outer iterations, of the run with the fewest."""
        return min(run["iterations"] for run in self.runs)

    @property
    def steps(self) -> int:
        """Inner steps at test."""
        return min(run["steps"] for run in self.runs)

    def at(self, step: int, shots: int | None = None) -> tuple[float, float]:
        """Mean over runs and tasks after ``step`` inner steps, and half of its 95% interval over tasks.

        All runs are tested on the same tasks, so the interval is the mean of theirs, not narrower for more seeds. A
        learner that was not adapted so far (the oracle, which is not adapted at all) stays as it was.
        """
        curve = self.curve(shots)
        last = min(step, self.steps)
        return curve["mean"][last], curve["ci95"][last]

    def seed_range(self, step: int) -> tuple[float, float]:
        """The lowest and the highest mean of a single run after ``step`` inner steps."""
        means = [run["mean"][min(step, run["steps"])] for run in self.runs]
        return min(means), max(means)

    def curve(self, shots: int | None = None) -> dict[str, list[float]]:
        """Mean and interval after 0 … K steps, averaged over runs; at another number of shots if given."""
        runs = [
            run if shots is None or run["config"]["shots"] == shots else run["other_shots"][str(shots)]
            for run in self.runs
        ]
        return {
            key: [sum(values) / len(runs) for values in zip(*(run[key] for run in runs), strict=True)]
            for key in ("mean", "ci95")
        }


def load_results(folder: Path, table: str) -> dict[str, Found]:
    """The committed results of a table by experiment, in the order of ``fewstep list``."""
    files = sorted(folder.glob(f"{TABLES[table]}*-seed*.json"))
    runs = [json.loads(file.read_text()) for file in files]
    names = [name for name in EXPERIMENTS if any(run["experiment"] == name for run in runs)]
    return {name: Found(name, [run for run in runs if run["experiment"] == name]) for name in names}


def table_rows(found: dict[str, Found], steps: Sequence[int] = (1, 5, 10)) -> list[list[str]]:
    """The header and the rows of the table: our numbers, the paper's, seeds and iterations."""
    header = ["experiment", *(f"{k} step{'s' * (k > 1)}" for k in steps), *(f"paper, {k}" for k in steps)]
    table = [[*header, "seeds", "iterations"]]
    for name, result in found.items():
        paper = EXPERIMENTS[name].paper
        ours = [_number(*result.at(k)) for k in steps]
        theirs = [f"{paper[k]:.2f}" if k in paper else "–" for k in steps]
        seeds = ", ".join(str(seed) for seed in result.seeds)
        table.append([name, *ours, *theirs, seeds, f"{result.iterations:,}"])
    return table


def _number(mean: float, interval: float) -> str:
    if not math.isfinite(mean) or mean > 1e4:
        return "diverges"
    digits = 2 if mean >= 0.1 else 4
    return f"{mean:.{digits}f} ± {interval:.{digits}f}"


def markdown(table: list[list[str]]) -> str:
    """A table in Markdown."""
    header, *rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def plot_figure_3(found: dict[str, Found], path: Path) -> Path | None:
    """Figure 3 of the MAML paper: error over gradient steps for the 10-shot models, tested at K = 5, 10 and 20."""
    from fewstep.evaluation.figures import plot_over_steps

    names = [name for name in found if name.startswith("sinusoid-10shot-")]
    if not names:
        return None
    steps = max(found[name].steps for name in names)
    panels: dict[str, dict[str, dict[str, Any]]] = {}
    for k in (5, 10, 20):
        panels[f"K = {k}"] = curves = {}
        for name in names:
            mean, ci95 = zip(*(found[name].at(step, k) for step in range(steps + 1)), strict=True)
            curves[name.removeprefix("sinusoid-10shot-")] = {"mean": mean, "ci95": ci95}
    return plot_over_steps(panels, path, "mean squared error")

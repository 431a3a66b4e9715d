"""The results of runs: one ``EXPERIMENT-seedS.json`` each, gathered by experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.experiments.catalogue import EXPERIMENTS
from fewstep.experiments.result_files import read_results
from fewstep.experiments.row import Row

TABLES = tuple(dict.fromkeys(row.table for row in EXPERIMENTS.values()))
"""The tables that can be reproduced."""


@dataclass(frozen=True)
class RowResults:
    """All runs of one experiment.

    Args:
        name: the experiment.
        runs: the contents of their ``results.json``.
    """

    name: str
    runs: list[dict[str, Any]]

    @property
    def row(self) -> Row:
        """The experiment as it stands, with the paper's numbers."""
        return EXPERIMENTS[self.name]

    @property
    def seeds(self) -> list[int]:
        """Seeds that were run."""
        return sorted(run["seed"] for run in self.runs)

    @property
    def iterations(self) -> int:
        """Outer iterations, of the run with the fewest."""
        return min(run["iterations"] for run in self.runs)

    @property
    def trained(self) -> str:
        """The iterations in words: "60,000", or "6,000 of 60,000" if the experiment trains for longer."""
        whole = self.row.config.iterations
        return f"{self.iterations:,}" + (f" of {whole:,}" if self.iterations < whole else "")

    @property
    def training_tasks(self) -> int:
        """Tasks trained on, of the run with the fewest."""
        return round(self.iterations * self.row.config.tasks_per_iteration)

    @property
    def steps(self) -> int:
        """Inner steps at test."""
        return min(run["steps"] for run in self.runs)

    def after(self, step: int, shots: int | None = None) -> tuple[float, float]:
        """Mean over runs and tasks after ``step`` inner steps, and half of its 95% interval over tasks.

        All runs are tested on the same tasks, so the interval is the mean of theirs, not narrower for more seeds. For
        more steps than the learner was tested with (the oracle takes none) it is the last mean.

        Args:
            step: number of inner steps.
            shots: number of support examples at test; the experiment's own if not given.
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

    @property
    def tested_on(self) -> str:
        """In reinforcement learning: episodes for each update and tasks at test, "40, the authors' goals"."""
        words = {"paper": "the authors' goals", "drawn": "drawn tasks"}
        found = {
            (config.get("test_episodes") or config["shots"], words[config.get("test_goals", "drawn")])
            for config in (run["config"] for run in self.runs)
        }
        return "; ".join(f"{episodes}, {goals}" for episodes, goals in sorted(found))

    def mean_of(self, key: str) -> float | None:
        """A number of the results, averaged over the runs that have it."""
        values = [run[key] for run in self.runs if run.get(key) is not None]
        return sum(values) / len(values) if values else None


def load_results(folder: Path, table: str) -> dict[str, RowResults]:
    """The results of a table by experiment, in the order of ``fewstep list``."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name, row in EXPERIMENTS.items() if row.table == table}
    for file in sorted(folder.glob("*-seed*.json")):
        run = read_results(file)
        if run["experiment"] in runs:
            runs[run["experiment"]].append(run)
    return {name: RowResults(name, of_row) for name, of_row in runs.items() if of_row}

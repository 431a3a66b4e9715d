"""Which figures the results of a table have, and their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep.experiments.curves import load_curves
from fewstep.experiments.few_shot_tables import methods_at_equal_budget, percent
from fewstep.experiments.results import RowResults
from fewstep.experiments.tables import metric_of
from fewstep.figures.inner_steps import plot_over_steps
from fewstep.figures.reproduction import MethodCost, PaperCurve, plot_method_costs, plot_paper_curves
from fewstep.figures.reproduction import plot_return_curves as plot_curves_of_returns


def figures_of(table: str, found: dict[str, RowResults], results: Path, into: Path) -> list[Path]:
    """Draws what the results of a table allow.

    Args:
        table: its name.
        found: its results.
        results: the folder of the results, which has the learning curves.
        into: the folder of the figures.

    Returns:
        The files drawn.
    """
    metric = metric_of(found)
    if metric == "mse":
        drawn = [plot_figure_3(found, into / "figure-3.png")]
    elif metric == "mean_return":
        drawn = [
            plot_returns(found, into / f"{table}-updates.png"),
            plot_return_curves(found, results, into / f"{table}-curves.png"),
        ]
    else:
        drawn = [
            plot_methods(methods_at_equal_budget(found), into / f"{table}-methods.png"),
            plot_curves(found, results, into / f"{table}-curves.png"),
        ]
    return [file for file in drawn if file is not None]


def plot_figure_3(found: dict[str, RowResults], path: Path) -> Path | None:
    """Figure 3 of the MAML paper: error over gradient steps for the 10-shot models, tested at K = 5, 10 and 20."""
    shown = {result.row.label: result for result in found.values() if result.row.config.shots == 10}
    if not shown:
        return None
    steps = max(result.steps for result in shown.values())
    panels: dict[str, dict[str, dict[str, Any]]] = {}
    for k in (5, 10, 20):
        panels[f"K = {k}"] = curves = {}
        for label, result in shown.items():
            mean, ci95 = zip(*(result.after(step, k) for step in range(steps + 1)), strict=True)
            curves[label] = {"mean": mean, "ci95": ci95}
    return plot_over_steps(panels, path, "mean squared error")


def plot_returns(found: dict[str, RowResults], path: Path) -> Path | None:
    """Return over updates of every method, a panel for each environment (MAML, Figures 4 and 5).

    A policy that is not adapted is a point, and the paper's numbers are not drawn: only those of 2D navigation compare.
    """
    panels: dict[str, dict[str, dict[str, Any]]] = {}
    for result in found.values():
        panels.setdefault(result.row.config.world.title, {})[result.row.label] = result.curve()
    return plot_over_steps(panels, path, "mean_return", sharey=False, steps="policy updates") if panels else None


def plot_return_curves(found: dict[str, RowResults], results: Path, path: Path) -> Path | None:
    """Return in validation over iterations, of the first seed of every method that is trained."""
    panels: dict[str, dict[str, Sequence[dict[str, Any]]]] = {}
    for name, result in found.items():
        curves = load_curves(results, name)
        rows = [row for row in next(iter(curves.values()), []) if "validation" in row]
        if len(rows) > 1:
            panels.setdefault(result.row.config.world.title, {})[result.row.label] = rows
    return plot_curves_of_returns(panels, path) if panels else None


def plot_methods(methods: Mapping[str, RowResults], path: Path) -> Path | None:
    """Accuracy with its interval, training time and adaptation time of methods, a line each, in the order given."""
    if not methods:
        return None
    lines = []
    for name, result in methods.items():
        label = f"{name} ({result.trained} iterations)" if " of " in result.trained else name
        costs = result.mean_of("seconds_per_1000_tasks"), result.mean_of("adaptation_seconds")
        lines.append(MethodCost(label, *result.after(result.steps), *costs))
    return plot_method_costs(lines, path)


def plot_curves(found: dict[str, RowResults], results: Path, path: Path) -> Path | None:
    """Validation accuracy over iterations of the runs of a paper's rows, and the paper's final accuracy as a line.

    A run with a single validation has no curve yet.
    """
    panels = []
    for name, result in found.items():
        validated = {
            f"validation, seed {seed}": [row for row in rows if "validation" in row]
            for seed, rows in load_curves(results, name).items()
        }
        runs = {label: rows for label, rows in validated.items() if len(rows) > 1}
        if result.row.comparison != "papers" or not runs:
            continue
        paper = result.row.paper.get(result.row.config.test_steps)
        interval = result.row.paper_ci95.get(result.row.config.test_steps)
        label = "" if paper is None else f"paper, at test: {percent(paper, interval)}"
        panels.append(PaperCurve(f"{name}\n{result.trained} iterations", runs, paper, interval, label))
    return plot_paper_curves(panels, path) if panels else None

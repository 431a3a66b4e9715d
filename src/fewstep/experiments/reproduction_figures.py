"""Which figures the results of a table have, and their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep.experiments.curves import load_curves
from fewstep.experiments.few_shot_tables import budget_label, methods_at_equal_budget, percent
from fewstep.experiments.results import OF_RETURNS, RowResults
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
    if table == "sinusoid":
        drawn = [plot_figure_3(found, into / "figure-3.png")]
    elif table in OF_RETURNS:
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


def plot_returns(found: dict[str, RowResults], path: Path) -> Path | None:
    """Return over updates of every method, a panel for each environment (MAML, Figures 4 and 5).

    A policy that is not adapted is a point, and the paper's numbers are not drawn: only those of 2D navigation compare.
    """
    panels: dict[str, dict[str, dict[str, Any]]] = {}
    for result in found.values():
        config = result.row.config
        panels.setdefault(_title(config.world), {})[_method(result)] = result.curve()
    return plot_over_steps(panels, path, "mean_return", sharey=False, steps="policy updates") if panels else None


def plot_return_curves(found: dict[str, RowResults], results: Path, path: Path) -> Path | None:
    """Return in validation over iterations, of the first seed of every method that is trained."""
    panels: dict[str, dict[str, Sequence[dict[str, Any]]]] = {}
    for name, result in found.items():
        curves, config = load_curves(results, name), result.row.config
        rows = [row for row in next(iter(curves.values()), []) if "validation" in row]
        if len(rows) > 1:
            panels.setdefault(_title(config.world), {})[_method(result)] = rows
    return plot_curves_of_returns(panels, path) if panels else None


def _method(result: RowResults) -> str:
    return result.name.removeprefix(f"{result.row.config.world}-")


def _title(world: str) -> str:
    return "2D navigation" if world == "navigation" else world.replace("-", ", ")


def plot_methods(methods: Mapping[str, RowResults], path: Path) -> Path | None:
    """Accuracy with its interval, training time and adaptation time of methods, a line each, in the order given."""
    if not methods:
        return None
    lines = []
    for name, result in methods.items():
        label = f"{name} ({result.trained} iterations)" if " of " in result.trained else name
        costs = result.mean_of("seconds_per_1000_tasks"), result.mean_of("adaptation_seconds")
        lines.append(MethodCost(label, *result.at(result.steps), *costs))
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
        if budget_label(name) is not None or not runs:
            continue
        paper = result.row.paper.get(result.row.config.test_steps)
        interval = result.row.paper_ci95.get(result.row.config.test_steps)
        label = "" if paper is None else f"paper, at test: {percent(paper, interval)}"
        panels.append(PaperCurve(f"{name}\n{result.trained} iterations", runs, paper, interval, label))
    return plot_paper_curves(panels, path) if panels else None

"""The figures of a reproduction: the paper's Figure 3, methods side by side, learning curves against the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep.experiments.curves import load_curves
from fewstep.experiments.few_shot_tables import budget_label, methods_at_equal_budget, percent
from fewstep.experiments.results import OF_RETURNS, RowResults
from fewstep.figures.inner_steps import plot_over_steps
from fewstep.figures.style import COLOURS, draw_interval, figure, save, tidy


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
    return plot_over_steps(panels, path, "mean_return", sharey=False) if panels else None


def plot_return_curves(found: dict[str, RowResults], results: Path, path: Path) -> Path | None:
    """Return in validation over iterations, of the first seed of every method that is trained."""
    panels: dict[str, dict[str, Sequence[dict[str, Any]]]] = {}
    for name, result in found.items():
        curves, config = load_curves(results, name), result.row.config
        rows = [row for row in next(iter(curves.values()), []) if "validation" in row]
        if len(rows) > 1:
            panels.setdefault(_title(config.world), {})[_method(result)] = rows
    if not panels:
        return None
    drawn, (axes,) = figure(columns=len(panels), width=4.6, height=3.4)
    for ax, (title, methods) in zip(axes, panels.items(), strict=True):
        for colour, (method, validated) in zip(COLOURS * len(methods), methods.items(), strict=False):
            x, mean, ci95 = ([row[key] for row in validated] for key in ("iteration", "validation", "validation_ci95"))
            draw_interval(ax, x, mean, ci95, "mean_return", color=colour, label=method)
        ax.set_title(title, fontsize=10)
        ax.set_xlim(left=0)
        tidy(ax, "outer iterations", "return in validation after the last update" if ax is axes[0] else "")
        ax.legend(fontsize=7, loc="best")
    return save(drawn, path)


def _method(result: RowResults) -> str:
    return result.name.removeprefix(f"{result.row.config.world}-")


def _title(world: str) -> str:
    return "2D navigation" if world == "navigation" else world.replace("-", ", ")


def plot_methods(methods: Mapping[str, RowResults], path: Path) -> Path | None:
    """Accuracy with its interval, training time and adaptation time of methods, a line each, the best on top."""
    if not methods:
        return None
    names = list(methods)
    drawn, ((accuracy, training, adaptation),) = figure(
        columns=3, width=4.0, height=1.1 + 0.24 * len(names), sharey=True, width_ratios=(1.5, 1, 1)
    )
    places = range(len(names))
    for place, result in zip(places, methods.values(), strict=True):
        mean, interval = result.at(result.steps)
        accuracy.errorbar(100 * mean, place, xerr=100 * interval, fmt="o", markersize=4, capsize=2.5, color=COLOURS[0])
        accuracy.annotate(
            percent(mean, digits=1), (100 * (mean + interval), place), (5, 0), textcoords="offset points",
            va="center", fontsize=7,
        )  # fmt: skip
    labels = [f"{name} ({r.trained} iterations)" if " of " in r.trained else name for name, r in methods.items()]
    accuracy.set_yticks(places, labels)
    accuracy.set_ylim(len(names) - 0.4, -0.6)
    accuracy.margins(x=0.12)
    tidy(accuracy, "accuracy, %, with its 95% interval")
    _draw_times(training, [result.mean_of("seconds_per_1000_tasks") for result in methods.values()], COLOURS[1])
    tidy(training, "training, seconds per 1,000 tasks")
    seconds = [result.mean_of("adaptation_seconds") for result in methods.values()]
    _draw_times(adaptation, [None if value is None else 1000 * value for value in seconds], COLOURS[2])
    tidy(adaptation, "a task at test, ms")
    return save(drawn, path)


def _draw_times(axes: Any, values: Sequence[float | None], colour: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    known = [(place, value) for place, value in enumerate(values) if value]
    axes.tick_params(axis="y", length=0)
    if not known:
        return
    places, lengths = zip(*known, strict=True)
    axes.set_xscale("log")
    # A dot and not a bar: a logarithmic axis has no zero for a bar to start from.
    axes.plot(lengths, places, "o", markersize=4.5, color=colour)
    for place, value in known:
        text = f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
        axes.annotate(text, (value, place), (6, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_xlim(0.6 * min(lengths), 3.0 * max(lengths))
    narrow = max(lengths) < 30 * min(lengths)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def plot_curves(found: dict[str, RowResults], results: Path, path: Path) -> Path | None:
    """Validation accuracy over iterations of the runs of a paper's rows, and the paper's final accuracy as a line.

    The paper's number is of test classes, the curve of validation classes: they agree only about. A run that was
    validated once has no curve yet.
    """
    from matplotlib.ticker import MaxNLocator

    panels = {}
    for name, result in found.items():
        curves = load_curves(results, name)
        points = {seed: [row for row in rows if "validation" in row] for seed, rows in curves.items()}
        drawable = {seed: rows for seed, rows in points.items() if len(rows) > 1}
        if budget_label(name) is None and drawable:
            panels[name] = (result, drawable)
    if not panels:
        return None
    columns = min(3, len(panels))
    drawn, grid = figure(columns=columns, rows=-(-len(panels) // columns), width=4.4, height=3.2)
    axes = list(grid.flat)
    for ax, (name, (result, curves)) in zip(axes, panels.items(), strict=False):
        for colour, (seed, rows) in zip(COLOURS * len(curves), curves.items(), strict=False):
            x, mean, ci95 = ([row[key] for row in rows] for key in ("iteration", "validation", "validation_ci95"))
            draw_interval(ax, x, mean, ci95, "accuracy", color=colour, label=f"validation, seed {seed}")
        steps = result.row.config.test_steps
        if steps in result.row.paper:
            paper, interval = result.row.paper[steps], result.row.paper_ci95.get(steps)
            label = f"the paper's at test: {percent(paper, interval)}"
            ax.axhline(100 * paper, color="#555b66", linestyle="--", linewidth=1.2, label=label)
            if interval is not None:
                ax.axhspan(100 * (paper - interval), 100 * (paper + interval), color="#555b66", alpha=0.12, linewidth=0)
        ax.set_title(f"{name}\n{result.trained} iterations", fontsize=9)
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        tidy(ax, "outer iterations", "accuracy, %")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.legend(fontsize=7, loc="best")
    for unused in axes[len(panels) :]:
        unused.set_axis_off()
    return save(drawn, path)

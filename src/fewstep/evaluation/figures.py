"""Figures that every experiment has: learning curves, and the metric over inner steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = ("#0f6fb5", "#d1495b", "#2e933c", "#8f5fbf", "#e08e1b", "#555b66", "#12a4a0", "#a0522d")


def figure(columns: int = 1, rows: int = 1, width: float = 6.0, height: float = 4.0, **options: Any) -> Any:
    """A figure and its axes, drawn without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn, drawn.subplots(rows, columns, squeeze=False, **options)


def tidy(axes: Any, x: str = "", y: str = "") -> None:
    """Labels, a light grid, no box."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save(drawn: Any, path: Path) -> Path:
    """Writes the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=130)
    return path


def plot_learning_curve(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> Path:
    """The meta-loss and the validation metric (with its 95% interval) over the iterations of one or more runs.

    Args:
        runs: the metrics of each run by name, as ``fit`` returns them.
        path: the picture to write.
    """
    drawn, ((axes,),) = figure(width=7)
    for colour, (name, rows) in zip(COLOURS * len(runs), runs.items(), strict=False):
        losses = [(row["iteration"], row["loss"]) for row in rows if "loss" in row]
        stride = max(1, len(losses) // 100)
        smooth = [losses[i : i + stride] for i in range(0, len(losses), stride)]
        axes.plot(
            [chunk[-1][0] for chunk in smooth],
            [sum(loss for _, loss in chunk) / len(chunk) for chunk in smooth],
            color=colour,
            alpha=0.45,
            label=f"{name}: training",
        )
        found = [row for row in rows if "validation" in row]
        if found:
            axes.errorbar(
                [row["iteration"] for row in found],
                [row["validation"] for row in found],
                [row["validation_ci95"] for row in found],
                color=colour,
                marker="o",
                markersize=3,
                capsize=2,
                label=f"{name}: validation, after the last step",
            )
    axes.set_yscale("log")
    tidy(axes, "outer iterations", "loss")
    axes.legend(fontsize=8)
    return save(drawn, path)


def plot_over_steps(panels: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path, metric: str) -> Path:
    """A metric over inner steps, a panel each, with 95% intervals.

    Args:
        panels: title → name of the curve → ``mean`` and ``ci95`` after 0 … K steps.
        path: the picture to write.
        metric: the label of the vertical axis.
    """
    drawn, axes = figure(columns=len(panels), width=4.6, sharey=True)
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for name, found in curves.items():
            colour = COLOURS[names.index(name) % len(COLOURS)]
            steps = range(len(found["mean"]))
            low = [m - c for m, c in zip(found["mean"], found["ci95"], strict=True)]
            high = [m + c for m, c in zip(found["mean"], found["ci95"], strict=True)]
            ax.plot(steps, found["mean"], color=colour, marker="o", markersize=3, label=name)
            ax.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.set_title(title)
        ax.set_yscale("log")
        tidy(ax, "gradient steps", metric if ax is axes[0][0] else "")
    axes[0][0].legend(fontsize=8)
    return save(drawn, path)

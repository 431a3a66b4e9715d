"""The figures of a reproduction: methods side by side, and learning curves against the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.figures.style import (
    COLOURS,
    GREY,
    draw_interval,
    figure,
    legend_below,
    legend_below_axes,
    save,
    tidy,
    title,
)  # fmt: skip

Rows = Sequence[Mapping[str, Any]]
"""Lines of metrics with validations, as [`fit`][fewstep.fit] returns them."""


@dataclass(frozen=True)
class MethodCost:
    """Accuracy and cost of a method.

    Args:
        label: its name.
        mean: accuracy, from 0 to 1.
        ci95: half of its 95% interval.
        training: seconds per 1,000 training tasks, if known.
        adaptation: seconds to adapt to a test task, if known.
    """

    label: str
    mean: float
    ci95: float
    training: float | None = None
    adaptation: float | None = None


@dataclass(frozen=True)
class PaperCurve:
    """The validations of the runs of a row, and the paper's result.

    Args:
        title: of the panel.
        runs: label → its rows with validations.
        paper: the paper's accuracy at test, from 0 to 1, if it prints one.
        paper_ci95: half of its interval, if it prints one.
        paper_label: what the paper's line is called.
    """

    title: str
    runs: Mapping[str, Rows]
    paper: float | None = None
    paper_ci95: float | None = None
    paper_label: str = "paper, at test"


def plot_method_costs(methods: Sequence[MethodCost], path: Path) -> Path:
    """Accuracy with its interval, training time and adaptation time of methods, a line each, in the order given."""
    drawn, ((accuracy, training, adaptation),) = figure(
        columns=3, width=4.0, height=1.1 + 0.24 * len(methods), sharey=True, width_ratios=(1.5, 1, 1)
    )
    places = range(len(methods))
    for place, one in zip(places, methods, strict=True):
        accuracy.errorbar(
            100 * one.mean, place, xerr=100 * one.ci95, fmt="o", markersize=4, capsize=2.5, color=COLOURS[0]
        )
        accuracy.annotate(
            f"{100 * one.mean:.1f}", (100 * (one.mean + one.ci95), place), (5, 0), textcoords="offset points",
            va="center", fontsize=7,
        )  # fmt: skip
    accuracy.set_yticks(places, [one.label for one in methods])
    accuracy.set_ylim(len(methods) - 0.4, -0.6)
    accuracy.margins(x=0.12)
    tidy(accuracy, "accuracy (%), 95% CI")
    _draw_times(training, [one.training for one in methods], COLOURS[1])
    tidy(training, "training (seconds per 1,000 tasks)")
    _draw_times(adaptation, [None if one.adaptation is None else 1000 * one.adaptation for one in methods], COLOURS[2])
    tidy(adaptation, "adaptation (ms per test task)")
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


def plot_return_curves(panels: Mapping[str, Mapping[str, Rows]], path: Path) -> Path:
    """Return in validation over iterations: a panel for each environment, a curve for each method.

    Args:
        panels: title → method → its rows with validations.
        path: the picture to write.
    """
    drawn, (axes,) = figure(columns=len(panels), width=4.6, height=3.9)
    names = list(dict.fromkeys(name for methods in panels.values() for name in methods))
    for ax, (words, methods) in zip(axes, panels.items(), strict=True):
        for method, validated in methods.items():
            colour = COLOURS[names.index(method) % len(COLOURS)]
            _draw_validations(ax, validated, "mean_return", color=colour, label=method)
        title(ax, words)
        ax.set_xlim(left=0)
        tidy(ax, "outer iterations", "validation return after the last update" if ax is axes[0] else "")
    legend_below(drawn, *axes)
    return save(drawn, path)


def plot_paper_curves(panels: Sequence[PaperCurve], path: Path) -> Path:
    """Validation accuracy over iterations, a panel for each row, and the paper's final accuracy as a line.

    The paper's number is of test classes, the curve of validation classes: they agree only roughly.
    """
    from matplotlib.ticker import MaxNLocator

    columns = min(3, len(panels))
    drawn, grid = figure(columns=columns, rows=-(-len(panels) // columns), width=4.4, height=3.6)
    axes = list(grid.flat)
    for ax, panel in zip(axes, panels, strict=False):
        for colour, (label, rows) in zip(COLOURS * len(panel.runs), panel.runs.items(), strict=False):
            _draw_validations(ax, rows, "accuracy", color=colour, label=label)
        if panel.paper is not None:
            ax.axhline(100 * panel.paper, color=GREY, linestyle="--", linewidth=1.2, label=panel.paper_label)
            if panel.paper_ci95 is not None:
                low, high = panel.paper - panel.paper_ci95, panel.paper + panel.paper_ci95
                ax.axhspan(100 * low, 100 * high, color=GREY, alpha=0.12, linewidth=0)
        title(ax, panel.title, size=9)
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        tidy(ax, "outer iterations", "accuracy (%)")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        legend_below_axes(ax)
    for unused in axes[len(panels) :]:
        unused.set_axis_off()
    return save(drawn, path)


def _draw_validations(axes: Any, rows: Rows, metric: str, **options: Any) -> None:
    x, mean, ci95 = ([row[key] for row in rows] for key in ("iteration", "validation", "validation_ci95"))
    draw_interval(axes, x, mean, ci95, metric, **options)

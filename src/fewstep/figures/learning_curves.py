"""Learning curves: the meta-loss and the validation metric over outer iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep.evaluation.numbers import has_either_sign
from fewstep.figures.style import (
    COLOURS,
    GREY,
    axis_label,
    draw_interval,
    factor_of,
    figure,
    finite,
    heading,
    legend_below,
    logarithmic,
    marker_of,
    save,
    scale_axis,
    tidy,
    title,
)  # fmt: skip

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
"""The metrics of each run by name, as [`fit`][fewstep.fit] returns them."""


def plot_learning_curve(runs: Runs, path: Path, metric: str = "loss", paper: float | None = None) -> Path:
    """Left the meta-loss, right the validation metric with its 95% interval, over the iterations of one or more runs.

    Runs with returns after adaptation have these on the left. Accuracy is in percent and on a linear axis, and returns
    are on a linear axis; anything else is on a logarithmic one. Without validations there is one panel.

    Args:
        runs: the metrics of each run by name, as [`fit`][fewstep.fit] returns them.
        path: the picture to write.
        metric: the name of the validation metric.
        paper: the paper's result, marked beside the validations.
    """
    validates = validated(runs)
    drawn, (panels,) = figure(columns=1 + validates, width=4.8 if validates else 6.0, height=3.9)
    draw_training(panels[0], runs, metric)
    title(panels[0], "training")
    if validates:
        draw_validation(panels[1], runs, metric, paper)
        title(panels[1], "validation after the last step, 95% CI")
        panels[1].set_xlim(panels[0].get_xlim())
    legend_below(drawn, *panels)
    if len(runs) == 1:
        heading(drawn, next(iter(runs)))
    return save(drawn, path)


def validated(runs: Runs) -> bool:
    """Whether any run has validations."""
    return any("validation" in row for rows in runs.values() for row in rows)


def training_label(runs: Runs) -> str:
    """What the curves of training show: the meta-loss, or returns where the rows have them."""
    return "return after adaptation" if _shown(runs) == "return_after" else "meta-loss"


def draw_training(axes: Any, runs: Runs, metric: str = "loss") -> None:
    """The meta-loss of each run over its iterations; returns after adaptation where the rows have them.

    Every logged value is a thin line, and means over twentieths of the run are a strong one.
    """
    shown = _shown(runs)
    for number, (name, rows) in enumerate(runs.items()):
        points = [(row["iteration"], row[shown]) for row in rows if shown in row]
        if points:
            _draw_losses(axes, name if len(runs) > 1 else "", COLOURS[number % len(COLOURS)], points)
    if shown == "loss" and not has_either_sign(metric):  # the loss of a policy has either sign too
        logarithmic(axes)
    _iterations(axes)
    tidy(axes, "outer iterations", training_label(runs))


def draw_validation(axes: Any, runs: Runs, metric: str, paper: float | None = None) -> None:
    """The validation metric of each run over its iterations with 95% intervals, and the paper's result as a line."""
    for number, (name, rows) in enumerate(runs.items()):
        found = [row for row in rows if "validation" in row]
        if found:
            x, mean, ci95 = ([row[key] for row in found] for key in ("iteration", "validation", "validation_ci95"))
            label = name if len(runs) > 1 else ""
            draw_interval(axes, x, mean, ci95, metric, color=COLOURS[number % len(COLOURS)], label=label)
    if paper is not None:
        axes.axhline(paper * factor_of(metric), color=GREY, linestyle="--", linewidth=1.2, label="paper, at test")
    scale_axis(axes, metric)
    _iterations(axes)
    tidy(axes, "outer iterations", axis_label(metric))


def _shown(runs: Runs) -> str:
    return "return_after" if any("return_after" in row for rows in runs.values() for row in rows) else "loss"


def _iterations(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _draw_losses(axes: Any, name: str, colour: str, losses: Sequence[tuple[int, float]]) -> None:
    stride = max(1, len(losses) // 20)
    chunks = [losses[i : i + stride] for i in range(0, len(losses), stride)]
    if stride > 1:
        iterations, values = zip(*losses, strict=True)
        axes.plot(iterations, finite(values), color=colour, alpha=0.3, linewidth=0.8)
    middles = [sum(iteration for iteration, _ in chunk) / len(chunk) for chunk in chunks]
    means = finite([sum(loss for _, loss in chunk) / len(chunk) for chunk in chunks])
    marker = marker_of(len(losses))
    axes.plot(middles, means, color=colour, label=name, marker=marker, markersize=3.5)

"""A metric over inner steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewstep.figures.style import COLOURS, GREY, axis_label, draw_interval, factor_of, figure, save, scale_axis, tidy


def plot_over_steps(
    panels: Mapping[str, Mapping[str, Mapping[str, Any]]],
    path: Path,
    metric: str,
    paper: Mapping[int, float] | None = None,
    sharey: bool = True,
) -> Path:
    """A metric over inner steps, a panel each, with 95% intervals.

    Accuracy is in percent and on a linear axis, as returns are; anything else on a logarithmic one.

    Args:
        panels: title → name of the curve → ``mean`` and ``ci95`` after 0 … K steps.
        path: the picture to write.
        metric: the name of the metric, the label of the vertical axis.
        paper: the paper's numbers by number of steps, marked in every panel.
        sharey: one vertical axis for all panels.
    """
    drawn, axes = figure(columns=len(panels), width=4.6, sharey=sharey)
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for name, found in curves.items():
            colour = COLOURS[names.index(name) % len(COLOURS)]
            steps = range(len(found["mean"]))
            draw_interval(ax, steps, found["mean"], found["ci95"], metric, color=colour, label=name)
        if paper:
            places, theirs = zip(*paper.items(), strict=True)
            values = [value * factor_of(metric) for value in theirs]
            ax.plot(
                places, values, "D", color=GREY, markerfacecolor="none", markersize=7, label="paper", zorder=3,
                clip_on=False,
            )  # fmt: skip
        ax.set_title(title, fontsize=10)
        ax.xaxis.get_major_locator().set_params(integer=True)
        scale_axis(ax, metric)
        tidy(ax, "gradient steps", axis_label(metric) if ax is axes[0][0] else "")
    axes[0][0].legend(fontsize=8, loc="best")
    return save(drawn, path)

"""A metric over inner steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewstep.figures.style import (
    COLOURS,
    GREY,
    axis_label,
    draw_interval,
    factor_of,
    figure,
    legend_below,
    save,
    scale_axis,
    tidy,
    title,
)  # fmt: skip

Curves = Mapping[str, Mapping[str, Any]]
"""``mean`` and ``ci95`` after 0 … K steps by the name of the curve."""


def plot_over_steps(
    panels: Mapping[str, Curves],
    path: Path,
    metric: str,
    paper: Mapping[int, float] | None = None,
    sharey: bool = True,
    steps: str = "gradient steps",
) -> Path:
    """A metric over inner steps, a panel each, with 95% intervals.

    Accuracy is in percent and on a linear axis, and returns are on a linear axis; anything else is on a logarithmic
    one.

    Args:
        panels: title → name of the curve → ``mean`` and ``ci95`` after 0 … K steps.
        path: the picture to write.
        metric: the name of the metric, the label of the vertical axis.
        paper: the paper's numbers by number of steps, marked in every panel.
        sharey: one vertical axis for all panels.
        steps: the label of the horizontal axis.
    """
    drawn, (axes,) = figure(columns=len(panels), width=4.6, height=4.2, sharey=sharey)
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    for ax, (words, curves) in zip(axes, panels.items(), strict=True):
        colours = {name: COLOURS[names.index(name) % len(COLOURS)] for name in curves}
        draw_over_steps(ax, curves, metric, colours, paper, steps)
        title(ax, words)
        if sharey and ax is not axes[0]:
            ax.set_ylabel("")
    if paper or len(names) > 1:
        legend_below(drawn, *axes)
    return save(drawn, path)


def draw_over_steps(
    axes: Any,
    curves: Curves,
    metric: str,
    colours: Mapping[str, str],
    paper: Mapping[int, float] | None = None,
    steps: str = "gradient steps",
) -> None:
    """One panel of [`plot_over_steps`][fewstep.figures.inner_steps.plot_over_steps], without title and legend."""
    for name, found in curves.items():
        numbers = range(len(found["mean"]))
        draw_interval(axes, numbers, found["mean"], found["ci95"], metric, color=colours[name], label=name)
    if paper:
        places, theirs = zip(*paper.items(), strict=True)
        values = [value * factor_of(metric) for value in theirs]
        axes.plot(
            places, values, "D", color=GREY, markerfacecolor="none", markersize=7, label="paper", zorder=3,
            clip_on=False,
        )  # fmt: skip
    axes.xaxis.get_major_locator().set_params(integer=True)
    scale_axis(axes, metric)
    tidy(axes, steps, axis_label(metric))

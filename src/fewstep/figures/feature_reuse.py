"""Figure 2 and table 1 of the feature reuse paper (Raghu et al. 2019) for any learner."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewstep.evaluation.evaluate import Evaluation
from fewstep.evaluation.feature_reuse import Comparison
from fewstep.evaluation.numbers import format_metric, in_percent
from fewstep.figures.style import COLOURS, axis_label, figure, heading, legend_below, save, tidy


def plot_feature_reuse(
    similarities: Mapping[str, Comparison],
    frozen: Comparison,
    path: str | Path,
    without_head: Evaluation | None = None,
    title: str = "",
) -> Path:
    """Left, the similarity of layers before and after adaptation; right, the metric with more and more blocks frozen.

    Both with 95% intervals.

    Args:
        similarities: as [`layer_similarity`][fewstep.evaluation.layer_similarity] returns them.
        frozen: as [`freezing`][fewstep.evaluation.freezing] returns it.
        path: the picture to write.
        without_head: as [`nil`][fewstep.evaluation.nil] returns it; one more bar.
        title: of the whole figure.
    """
    layers = next(iter(similarities.values())).names
    drawn, ((left, right),) = figure(columns=2, width=max(5.0, 0.8 * len(layers)), height=4.0)
    _draw_similarities(left, similarities, layers)
    _draw_rows(right, _rows(frozen, without_head), frozen.metric)
    legend_below(drawn, left)
    heading(drawn, title)
    return save(drawn, path)


def _rows(frozen: Comparison, without_head: Evaluation | None) -> list[tuple[str, float, float, str]]:
    """Label, mean, interval and colour of every bar on the right."""
    labels = ["none", *(f"up to {name}" for name in frozen.names[1:])]
    rows = [(*row, COLOURS[2]) for row in zip(labels, frozen.mean, frozen.ci95, strict=True)]
    if without_head is not None:
        rows.append(("NIL: no head", without_head.mean[0], without_head.ci95[0], COLOURS[4]))
    return rows


def _draw_similarities(axes: Any, similarities: Mapping[str, Comparison], layers: tuple[str, ...]) -> None:
    width = 0.8 / len(similarities)
    for number, (name, found) in enumerate(similarities.items()):
        places = [place + (number - (len(similarities) - 1) / 2) * width for place in range(len(layers))]
        colour = COLOURS[number % len(COLOURS)]
        axes.bar(places, found.mean, width, yerr=found.ci95, color=colour, capsize=2, label=name)
    crowded = sum(len(layer) for layer in layers) > 50
    axes.set_xticks(range(len(layers)), layers, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_ylim(0, 1.05)
    axes.set_axisbelow(True)
    axes.set_title("features before and after adaptation", fontsize=10)
    tidy(axes, "layer", "similarity")


def _draw_rows(axes: Any, rows: list[tuple[str, float, float, str]], metric: str) -> None:
    factor = 100 if in_percent(metric) else 1
    for place, (_, mean, interval, colour) in enumerate(rows):
        axes.barh(place, factor * mean, 0.7, xerr=factor * interval, color=colour, capsize=2)
        words = format_metric(metric, mean, interval)
        axes.text(1.02, place, words, va="center", fontsize=8, transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.set_xlim(0, 100 if in_percent(metric) else 1.05 * max(_end(mean, interval) for _, mean, interval, _ in rows))
    axes.invert_yaxis()
    axes.set_axisbelow(True)
    axes.set_title("blocks not adapted at test", fontsize=10)
    tidy(axes, axis_label(metric))


def _end(mean: float, interval: float) -> float:
    """Where a bar with its interval ends; a single task has no interval."""
    return mean + interval if math.isfinite(interval) else mean

"""Learning curves: the meta-loss and the validation metric over outer iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep.evaluation.numbers import has_either_sign, in_percent
from fewstep.figures.style import (
    COLOURS,
    GREY,
    axis_label,
    draw_interval,
    factor_of,
    figure,
    plain_ticks,
    save,
    scale_axis,
    tidy,
)  # fmt: skip


def plot_learning_curve(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, metric: str = "loss", paper: float | None = None
) -> Path:
    """Left the meta-loss, right the validation metric with its 95% interval, over the iterations of one or more runs.

    Where the rows have returns after adaptation, these are on the left.

    Accuracy is in percent and on a linear axis, as returns are; anything else on a logarithmic one. Without validations
    there is one panel.

    Args:
        runs: the metrics of each run by name, as ``fit`` returns them.
        path: the picture to write.
        metric: the name of the validation metric.
        paper: the paper's result, marked beside the validations.
    """
    shown = "return_after" if any("return_after" in row for rows in runs.values() for row in rows) else "loss"
    validated = any("validation" in row for rows in runs.values() for row in rows)
    drawn, (panels,) = figure(columns=1 + validated, width=4.8 if validated else 6.0, height=3.7)
    for number, (name, rows) in enumerate(runs.items()):
        colour = COLOURS[number % len(COLOURS)]
        _draw_losses(panels[0], name, colour, [(row["iteration"], row[shown]) for row in rows if shown in row])
        if validated:
            draw_interval(
                panels[1],
                [row["iteration"] for row in rows if "validation" in row],
                [row["validation"] for row in rows if "validation" in row],
                [row["validation_ci95"] for row in rows if "validation" in row],
                metric,
                color=colour,
            )
    panels[0].set_title("training", fontsize=10)
    if shown == "loss" and not has_either_sign(metric):  # or else so has the meta-loss, a surrogate
        panels[0].set_yscale("log")
        plain_ticks(panels[0])
    tidy(panels[0], "outer iterations", "meta-loss" if shown == "loss" else "return after adaptation")
    if len(runs) > 1:
        panels[0].legend(fontsize=8)
    else:
        drawn.suptitle(next(iter(runs)), fontsize=11)
    if validated:
        panels[1].set_title("validation after the last step, 95% CI", fontsize=10)
        panels[1].set_xlim(panels[0].get_xlim())
        if paper is not None:
            panels[1].axhline(
                paper * factor_of(metric), color=GREY, linestyle="--", linewidth=1.2, label="paper, at test"
            )
            panels[1].legend(
                fontsize=8, loc="lower right" if in_percent(metric) or has_either_sign(metric) else "upper right"
            )
        scale_axis(panels[1], metric)
        tidy(panels[1], "outer iterations", axis_label(metric))
    return save(drawn, path)


def _draw_losses(axes: Any, name: str, colour: str, losses: Sequence[tuple[int, float]]) -> None:
    """Every logged loss thinly, and means over twentieths of the run in a strong line."""
    stride = max(1, len(losses) // 20)
    chunks = [losses[i : i + stride] for i in range(0, len(losses), stride)]
    if stride > 1:
        axes.plot(*zip(*losses, strict=True), color=colour, alpha=0.3, linewidth=0.8)
    middles = [sum(iteration for iteration, _ in chunk) / len(chunk) for chunk in chunks]
    axes.plot(middles, [sum(loss for _, loss in chunk) / len(chunk) for chunk in chunks], color=colour, label=name)

"""Figure 2 of the MAML paper: one sine wave before and after adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fewstep.figures.style import figure, legend_below, save, tidy, title
from fewstep.tasks import Batch, Sinusoids, generator

SETTINGS: dict[str, tuple[int, tuple[float, float] | None]] = {
    "K = 5": (5, None),
    "K = 5, right half only": (5, (0.0, 5.0)),
    "K = 10": (10, None),
    "K = 10, right half only": (10, (0.0, 5.0)),
}
STEPS = {0: ("#8a9099", ":"), 1: ("#5b9fd0", "--"), 10: ("#0f6fb5", "-")}


def plot_fits(learners: Mapping[str, Any], path: Path, seed: int = 0) -> Path:
    """Fits before adaptation and after 1 and 10 gradient steps: a row per learner, a column per support set.

    Args:
        learners: title → a learner of functions from ``[examples, 1]`` to ``[examples, 1]``.
        path: the picture to write.
        seed: of the support points; the wave is the same everywhere (A = 4, φ = 1).
    """
    drawn, grid = figure(columns=len(SETTINGS), rows=len(learners), width=3.6, height=3.1, sharex=True, sharey=True)
    for row, (name, learner) in zip(grid, learners.items(), strict=True):
        for ax, (words, (shots, support_range)) in zip(row, SETTINGS.items(), strict=True):
            draw_fit(ax, learner, shots, support_range, seed)
            ax.label_outer()
            title(ax, f"{name}, {words}")
    legend_below(drawn, grid[0][0])
    return save(drawn, path)


def draw_fit(
    axes: Any, learner: Any, shots: int, support_range: tuple[float, float] | None = None, seed: int = 0
) -> None:
    """One panel of [`plot_fits`][fewstep.figures.sinusoids.plot_fits]: the wave, its support points and the fits.

    Args:
        axes: where to draw.
        learner: of functions from ``[examples, 1]`` to ``[examples, 1]``.
        shots: support points.
        support_range: the x that they are drawn from; all of [-5, 5] if not given.
        seed: of the support points.
    """
    x = torch.linspace(-5, 5, 400)[:, None]
    tasks = Sinusoids(shots, 1, support_range=support_range).points(
        torch.tensor([[4.0, 1.0]]), generator(seed, shots, stream=4)
    )
    like = next(learner.parameters())
    support: Batch = tasks[0].support.to(like.device, like.dtype)
    axes.plot(x, 4 * torch.sin(x - 1), color="#d1495b", linewidth=1.6, label="true function")
    for steps, (colour, style) in STEPS.items():
        with torch.no_grad():
            y = learner.adapt(support, steps)(x.to(like)).cpu()
        label = "before adaptation" if steps == 0 else f"after {steps} step{'s' * (steps > 1)}"
        axes.plot(x, y, color=colour, linestyle=style, linewidth=1.8, label=label)
    axes.plot(support.x.cpu(), support.y.cpu(), "^", color="#8f5fbf", markersize=7, label="support points")
    axes.set_ylim(-6, 6)
    tidy(axes, "x", "y")

"""Figure 2 of the MAML paper: one sine wave before and after adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fewstep.figures.style import figure, save, tidy
from fewstep.tasks import Batch, Sinusoids, generator

SETTINGS: dict[str, tuple[int, tuple[float, float] | None]] = {
    "K = 5": (5, None),
    "K = 5, right half only": (5, (0.0, 5.0)),
    "K = 10": (10, None),
    "K = 10, right half only": (10, (0.0, 5.0)),
}
STEPS = {0: ("#9aa0a8", ":"), 1: ("#7fb3d9", "--"), 10: ("#0f6fb5", "-")}


def plot_fits(learners: Mapping[str, Any], path: Path, seed: int = 0) -> Path:
    """Fits before adaptation and after 1 and 10 gradient steps: a row per learner, a column per support set.

    Args:
        learners: title → a learner of functions from ``[examples, 1]`` to ``[examples, 1]``.
        path: the picture to write.
        seed: of the support points; the wave is the same everywhere (A = 4, φ = 1).
    """
    drawn, axes = figure(columns=len(SETTINGS), rows=len(learners), width=3.6, height=3.0, sharex=True, sharey=True)
    wave = torch.tensor([[4.0, 1.0]])
    x = torch.linspace(-5, 5, 400)[:, None]
    truth = 4 * torch.sin(x - 1)
    for row, (name, learner) in zip(axes, learners.items(), strict=True):
        like = next(learner.parameters())
        for ax, (title, (shots, support_range)) in zip(row, SETTINGS.items(), strict=True):
            tasks = Sinusoids(shots, 1, support_range=support_range).points(wave, generator(seed, shots, stream=4))
            support: Batch = tasks[0].support.to(like.device, like.dtype)
            ax.plot(x, truth, color="#d1495b", linewidth=1.6, label="truth")
            for steps, (colour, style) in STEPS.items():
                with torch.no_grad():
                    y = learner.adapt(support, steps)(x.to(like)).cpu()
                label = "before adaptation" if steps == 0 else f"after {steps} step{'s' * (steps > 1)}"
                ax.plot(x, y, color=colour, linestyle=style, linewidth=1.8, label=label)
            ax.plot(support.x.cpu(), support.y.cpu(), "^", color="#5b2a86", markersize=7, label="support points")
            ax.set_ylim(-6, 6)
            ax.set_title(f"{name}, {title}", fontsize=10)
            tidy(ax)
    axes[0][0].legend(fontsize=7, loc="lower left")
    return save(drawn, path)

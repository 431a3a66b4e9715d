"""Figures that every experiment has: learning curves, and the metric over inner steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep.evaluation.numbers import has_either_sign, in_percent

COLOURS = ("#0f6fb5", "#d1495b", "#2e933c", "#8f5fbf", "#e08e1b", "#555b66", "#12a4a0", "#a0522d")
GREY = "#555b66"


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


def save(drawn: Any, path: str | Path, colours: int | None = None) -> Path:
    """Writes the figure; with a palette of so many ``colours`` if given, which keeps photographs small."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=130)
    if colours is not None:
        from PIL import Image

        with Image.open(path) as image:
            reduced = image.convert("RGB").quantize(colours)
        reduced.save(path, optimize=True)
    return path


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
        _plain_ticks(panels[0])
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
                paper * _factor(metric), color=GREY, linestyle="--", linewidth=1.2, label="paper, at test"
            )
            panels[1].legend(
                fontsize=8, loc="lower right" if in_percent(metric) or has_either_sign(metric) else "upper right"
            )
        _scale(panels[1], metric)
        tidy(panels[1], "outer iterations", _label(metric))
    return save(drawn, path)


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
            values = [value * _factor(metric) for value in theirs]
            ax.plot(
                places, values, "D", color=GREY, markerfacecolor="none", markersize=7, label="paper", zorder=3,
                clip_on=False,
            )  # fmt: skip
        ax.set_title(title, fontsize=10)
        ax.xaxis.get_major_locator().set_params(integer=True)
        _scale(ax, metric)
        tidy(ax, "gradient steps", _label(metric) if ax is axes[0][0] else "")
    axes[0][0].legend(fontsize=8, loc="best")
    return save(drawn, path)


def _draw_losses(axes: Any, name: str, colour: str, losses: Sequence[tuple[int, float]]) -> None:
    """Every logged loss thinly, and means over twentieths of the run in a strong line."""
    stride = max(1, len(losses) // 20)
    chunks = [losses[i : i + stride] for i in range(0, len(losses), stride)]
    if stride > 1:
        axes.plot(*zip(*losses, strict=True), color=colour, alpha=0.3, linewidth=0.8)
    middles = [sum(iteration for iteration, _ in chunk) / len(chunk) for chunk in chunks]
    axes.plot(middles, [sum(loss for _, loss in chunk) / len(chunk) for chunk in chunks], color=colour, label=name)


def draw_interval(
    axes: Any, x: Sequence[float], mean: Sequence[float], ci95: Sequence[float], metric: str, **options: Any
) -> None:
    """A line through the means with a band of the intervals, or a bar where there is one mean only."""
    factor = _factor(metric)
    axes.plot(x, [m * factor for m in mean], marker="o", markersize=3.5, **options)
    if len(mean) == 1:
        axes.errorbar(x, [mean[0] * factor], [ci95[0] * factor], color=options["color"], capsize=3)
        return
    low = [(m - c) * factor for m, c in zip(mean, ci95, strict=True)]
    high = [(m + c) * factor for m, c in zip(mean, ci95, strict=True)]
    axes.fill_between(x, low, high, color=options["color"], alpha=0.2, linewidth=0)


def _factor(metric: str) -> int:
    return 100 if in_percent(metric) else 1


def _label(metric: str) -> str:
    return f"{metric} (%)" if in_percent(metric) else metric


def _scale(axes: Any, metric: str) -> None:
    if in_percent(metric):
        low, high = axes.get_ylim()
        axes.set_ylim(max(0, low), min(100.5, high))
    elif not has_either_sign(metric):
        axes.set_yscale("log")
        _plain_ticks(axes)


def _plain_ticks(axes: Any) -> None:
    """Ticks of a logarithmic axis as 0.2 and 3 rather than powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    subs = (1.0,) if high > 300 * low else (1.0, 2.0, 5.0) if high > 10 * low else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())

"""The look that all figures share: colours, axes, scales, intervals, files."""

from __future__ import annotations

from collections.abc import Sequence
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


def draw_interval(
    axes: Any, x: Sequence[float], mean: Sequence[float], ci95: Sequence[float], metric: str, **options: Any
) -> None:
    """A line through the means with a band of the intervals, or a bar where there is one mean only."""
    factor = factor_of(metric)
    axes.plot(x, [m * factor for m in mean], marker="o", markersize=3.5, **options)
    if len(mean) == 1:
        axes.errorbar(x, [mean[0] * factor], [ci95[0] * factor], color=options["color"], capsize=3)
        return
    low = [(m - c) * factor for m, c in zip(mean, ci95, strict=True)]
    high = [(m + c) * factor for m, c in zip(mean, ci95, strict=True)]
    axes.fill_between(x, low, high, color=options["color"], alpha=0.2, linewidth=0)


def factor_of(metric: str) -> int:
    """What a metric is multiplied by when it is drawn: 100 for percentages."""
    return 100 if in_percent(metric) else 1


def axis_label(metric: str) -> str:
    """The label of an axis with a metric, with its unit."""
    return f"{metric} (%)" if in_percent(metric) else metric


def scale_axis(axes: Any, metric: str) -> None:
    """Sets the vertical axis for a metric: percent and returns are linear, errors are logarithmic."""
    if in_percent(metric):
        low, high = axes.get_ylim()
        axes.set_ylim(max(0, low), min(100.5, high))
    elif not has_either_sign(metric):
        axes.set_yscale("log")
        plain_ticks(axes)


def plain_ticks(axes: Any) -> None:
    """Ticks of a logarithmic axis as 0.2 and 3 rather than powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    subs = (1.0,) if high > 300 * low else (1.0, 2.0, 5.0) if high > 10 * low else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())

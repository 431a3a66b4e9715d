"""The look that all figures share: colours, axes, scales, intervals, legends, files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep.evaluation.numbers import has_either_sign, in_percent

COLOURS = ("#0f6fb5", "#d1495b", "#2e933c", "#8f5fbf", "#e08e1b", "#555b66", "#12a4a0", "#a0522d")
GREY = "#6b717c"
_FEW_POINTS = 40
"""Curves of at most this many points show each of them."""


def figure(columns: int = 1, rows: int = 1, width: float = 6.0, height: float = 4.0, **options: Any) -> Any:
    """A figure and its axes, drawn without a screen; width and height of one panel in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn, drawn.subplots(rows, columns, squeeze=False, **options)


def tidy(axes: Any, x: str = "", y: str = "") -> None:
    """Labels, a light grid, no box."""
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def title(axes: Any, words: str, size: float = 10) -> None:
    """A title, in which a dollar sign is a dollar sign."""
    axes.set_title(words, fontsize=size, parse_math=False)


def heading(drawn: Any, words: str) -> None:
    """A title of the whole figure, in which a dollar sign is a dollar sign."""
    drawn.suptitle(words, fontsize=11, parse_math=False)


def legend_below(drawn: Any, *panels: Any) -> None:
    """One legend below all panels, with each label once; none if there is no label."""
    found = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    _legend(drawn, found, drawn.get_figwidth(), loc="outside lower center")


def legend_below_axes(axes: Any) -> None:
    """A legend below one panel, where panels have legends that differ."""
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    width = axes.get_position().width * axes.figure.get_figwidth()
    _legend(axes, found, width, loc="upper center", bbox_to_anchor=(0.5, -0.2))


def _legend(owner: Any, entries: Mapping[str, Any], width: float, **options: Any) -> None:
    if not entries:
        return
    longest = max(map(len, entries))
    columns = max(1, min(len(entries), int(width / (0.5 + 0.075 * longest))))
    made = owner.legend(
        list(entries.values()), list(entries), fontsize=8, ncols=columns, frameon=False, handlelength=2.2, **options
    )
    for text in made.get_texts():
        text.set_parse_math(False)


def save(drawn: Any, path: str | Path, colours: int | None = None) -> Path:
    """Writes the figure; with a palette of that many ``colours`` if given, which keeps photographs small."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=130)
    if colours is not None:
        from PIL import Image

        with Image.open(path) as image:
            reduced = image.convert("RGB").quantize(colours)
        reduced.save(path, optimize=True)
    return path


def marker_of(points: int) -> str:
    """A dot on every point where there are few of them: a line through one point cannot be seen."""
    return "o" if points <= _FEW_POINTS else ""


def finite(values: Sequence[float]) -> list[float]:
    """The values, with NaN, which is a gap in a curve, in place of infinity.

    >>> finite([1, float("inf")])
    [1, nan]
    """
    return [value if math.isfinite(value) else math.nan for value in values]


def draw_interval(
    axes: Any, x: Sequence[float], mean: Sequence[float], ci95: Sequence[float], metric: str, **options: Any
) -> None:
    """A line through the means with a band of the intervals, or a bar where there is one mean only."""
    factor = factor_of(metric)
    means, halves = [m * factor for m in finite(mean)], [c * factor for c in finite(ci95)]
    axes.plot(x, means, **{"marker": "o", "markersize": 3.5, **options})
    if len(means) == 1:
        axes.errorbar(x, means, halves, color=options["color"], capsize=3)
        return
    low = [m - c for m, c in zip(means, halves, strict=True)]
    high = [m + c for m, c in zip(means, halves, strict=True)]
    axes.fill_between(x, low, high, color=options["color"], alpha=0.2, linewidth=0)


def factor_of(metric: str) -> int:
    """What a metric is multiplied by when it is drawn: 100 for percentages."""
    return 100 if in_percent(metric) else 1


def axis_label(metric: str) -> str:
    """The label of an axis with a metric, with its unit.

    >>> axis_label("accuracy"), axis_label("mse")
    ('accuracy (%)', 'mean squared error')
    """
    return {"accuracy": "accuracy (%)", "mse": "mean squared error", "mean_return": "return"}.get(metric, metric)


def scale_axis(axes: Any, metric: str) -> None:
    """Sets the vertical axis for a metric: percent and returns are linear, errors logarithmic if they are positive."""
    if in_percent(metric):
        low, high = axes.get_ylim()
        axes.set_ylim(max(0, low), min(100.5, high))
    elif not has_either_sign(metric):
        logarithmic(axes)


def logarithmic(axes: Any) -> None:
    """A logarithmic vertical axis; it stays linear with values that are not positive, or fewer than two of them."""
    values = [float(value) for line in axes.lines for value in line.get_ydata()]
    known = [value for value in values if math.isfinite(value)]
    if known and 0 < min(known) < max(known):
        axes.set_yscale("log")
        plain_ticks(axes)


def plain_ticks(axes: Any) -> None:
    """Ticks of a logarithmic axis as 0.2 and 3 rather than powers of ten."""
    from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

    low, high = axes.get_ylim()
    locator: Locator = MaxNLocator(5)  # less than an octave has too few round numbers
    if high > 3 * low:
        subs = (1.0,) if high > 300 * low else (1.0, 2.0, 5.0) if high > 10 * low else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
        locator = LogLocator(subs=subs)
    axes.yaxis.set_major_locator(locator)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())

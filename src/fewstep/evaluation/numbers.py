"""Formatting of metrics: accuracies in percent, other numbers unchanged."""

from __future__ import annotations

import math


def in_percent(metric: str) -> bool:
    """Whether a metric of this name is a fraction that is shown in percent."""
    return metric == "accuracy"


def has_either_sign(metric: str) -> bool:
    """Whether a metric of this name may be negative, so that a logarithmic scale cannot be used."""
    return metric == "mean_return"


def format_metric(metric: str, mean: float, ci95: float | None = None) -> str:
    """Format a mean, with half the width of its confidence interval if given.

    Examples:
        >>> format_metric("accuracy", 0.98534, 0.00312), format_metric("mse", 0.6801, 0.0592)
        ('98.53% ± 0.31', '0.6801 ± 0.0592')
        >>> format_metric("accuracy", 0.987)
        '98.7%'
    """
    if ci95 is None:
        return f"{100 * mean:.4g}%" if in_percent(metric) else f"{mean:g}"
    if in_percent(metric):
        return f"{100 * mean:.2f}% ± {100 * ci95:.2f}" if math.isfinite(ci95) else f"{100 * mean:.2f}%"
    return f"{mean:.4f} ± {ci95:.4f}"

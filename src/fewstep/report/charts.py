"""The curves of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fewstep.evaluation.numbers import has_either_sign
from fewstep.figures.inner_steps import draw_over_steps
from fewstep.figures.learning_curves import draw_training, draw_validation, training_label
from fewstep.figures.style import COLOURS, axis_label, figure
from fewstep.report.contents import RunContents
from fewstep.report.markup import Html, element
from fewstep.report.pictures import svg

MOST = len(COLOURS)
"""Runs in one picture, each in a colour that no other has."""


def charts(runs: Sequence[RunContents], prefix: str) -> list[Html]:
    """Training, validation, and the metric over inner steps: a figure each, of all runs, where there is data.

    The runs must have the same metric. Their colours are those of [`legend`][fewstep.report.charts.legend].
    """
    shown = {str(number): run for number, run in enumerate(runs)}
    metrics = {name: run.metrics for name, run in shown.items()}
    metric = runs[0].metric or "metric"
    made = []
    label = training_label(metrics)
    if any("loss" in row or "return_after" in row for rows in metrics.values() for row in rows):
        drawn, ((axes,),) = figure(width=4.6, height=3.2)
        draw_training(axes, metrics, metric)
        caption = f"Training: {label} over outer iterations."
        made.append(_figure(drawn, caption, f"{prefix}-training"))
    paper = _papers_final(runs)
    if any(run.validations for run in runs):
        drawn, ((axes,),) = figure(width=4.6, height=3.2)
        draw_validation(axes, metrics, metric, paper)
        caption = f"Validation: {axis_label(metric)} after the last inner step, with 95% intervals."
        made.append(_figure(drawn, caption + _DASHED * (paper is not None), f"{prefix}-validation"))
    tested = {name: run.results for name, run in shown.items() if run.results is not None}
    if any(len(results["mean"]) > 1 for results in tested.values()):
        drawn, ((axes,),) = figure(width=4.6, height=3.2)
        colours = {name: COLOURS[int(name)] for name in tested}
        papers = {
            step: value for step, value in _paper(runs).items() if step < max(len(r["mean"]) for r in tested.values())
        }
        steps = "policy updates" if has_either_sign(metric) else "gradient steps"
        draw_over_steps(axes, tested, metric, colours, papers, steps)
        caption = f"Test: {axis_label(metric)} over {steps}, with 95% intervals."
        diamonds = " Diamonds: the paper." if papers else ""
        made.append(_figure(drawn, caption + diamonds, f"{prefix}-steps"))
    return made


_DASHED = " Dashed: the paper's result at test."


def legend(runs: Sequence[RunContents]) -> Html:
    """The names of runs with the colours of their curves."""
    entries = [
        element("li", element("span", class_=f"series-{number}"), run.name) for number, run in enumerate(runs[:MOST])
    ]
    return element("ul", *entries, class_="legend")


def picture(drawn: Any, caption: object, prefix: str, label: str) -> Html:
    """A Matplotlib figure with a caption."""
    scrolls = element("div", Html(svg(drawn, label, prefix)), class_="scroll")
    return element("figure", scrolls, element("figcaption", caption))


def _figure(drawn: Any, caption: str, prefix: str) -> Html:
    return picture(drawn, caption, prefix, caption)


def _paper(runs: Sequence[RunContents]) -> dict[int, float]:
    """The paper's numbers, if all runs are compared with the same ones."""
    first = runs[0].paper
    return first if all(run.paper == first for run in runs) else {}


def _papers_final(runs: Sequence[RunContents]) -> float | None:
    paper = _paper(runs)
    return paper.get(runs[0].row.config.test_steps) if paper else None

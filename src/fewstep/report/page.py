"""The page of a report: a comparison if there are several runs, then a section for each run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import fewstep
from fewstep.evaluation.numbers import format_metric
from fewstep.figures.style import axis_label
from fewstep.report.charts import MOST, charts, legend
from fewstep.report.contents import RunContents
from fewstep.report.cost import costs, training_time
from fewstep.report.markup import Html, element, joined, table
from fewstep.report.resume import how_to_resume
from fewstep.report.style import STYLE

_UNKNOWN = "–"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What the page may load: nothing but the pictures in it."""


def page(runs: Sequence[RunContents], examples: Sequence[Html | None], title: str) -> str:
    """The whole HTML file.

    Args:
        runs: at least one.
        examples: of each run, an example task as a figure.
        title: of the page.
    """
    body = [element("h1", title)]
    if len(runs) > 1:
        body.append(_comparison(runs))
    body += [
        _run(run, example, f"run-{n}", len(runs)) for n, (run, example) in enumerate(zip(runs, examples, strict=True))
    ]
    written = element("footer", element("p", f"Written by fewstep {fewstep.__version__}.", class_="muted"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', element('main', *body), written), lang='en')}\n"


def _comparison(runs: Sequence[RunContents]) -> Html:
    header: list[object] = ["run", "experiment", "iterations", "last validation", "test", "paper", "training time"]
    rows: list[list[object]] = [
        [
            element("a", run.name, href=f"#run-{number}"),
            run.experiment or _UNKNOWN,
            _progress(run),
            _validation(run),
            _result(run),
            _papers(run),
            training_time(run) or _UNKNOWN,
        ]
        for number, run in enumerate(runs)
    ]
    parts = [element("h2", "Comparison"), table(header, rows, class_="wide")]
    by_metric = sorted(runs, key=lambda run: run.metric or "")
    for number, (_, group) in enumerate(groupby(by_metric, key=lambda run: run.metric or "")):
        together = list(group)
        for start in range(0, len(together) if len(together) > 1 or len(runs) > MOST else 0, MOST):
            shown = together[start : start + MOST]
            parts += [legend(shown), element("div", *charts(shown, f"all-{number}-{start}"), class_="pictures")]
    return element("section", *parts, _differences(runs))


def _differences(runs: Sequence[RunContents]) -> Html:
    """The settings that runs have with different values, a row each; there is no room for many runs."""
    every = [{f"{g}.{k}": _value(v) for g, values in run.settings.items() for k, v in values.items()} for run in runs]
    names = list(dict.fromkeys(name for settings in every for name in settings))
    differing = [name for name in names if len({settings[name] for settings in every if name in settings}) > 1]
    if not differing or len(runs) > MOST:
        return joined([])
    shown = [(run, settings) for run, settings in zip(runs, every, strict=True) if settings]
    header: list[object] = ["setting", *(run.name for run, _ in shown)]
    rows: list[list[object]] = [
        [name.partition(".")[2], *(settings.get(name, _UNKNOWN) for _, settings in shown)] for name in differing
    ]
    return joined(
        [element("h3", "Settings that differ"), element("div", table(header, rows, class_="wide"), class_="scroll")]
    )


def _run(run: RunContents, example: Html | None, anchor: str, runs: int) -> Html:
    heading = [element("h2", run.name)] if runs > 1 else []
    about = [text for text in (run.experiment, run.row and run.row.summary, run.path and str(run.path)) if text]
    parts = [*heading, *(element("p", line, class_="muted") for line in about), _facts(run)]
    if run.notes:
        parts.append(element("ul", *(element("li", note) for note in run.notes), class_="note"))
    drawn = charts([run], anchor) if runs <= MOST else []  # of more runs the comparison has the curves
    if drawn:
        parts.append(element("div", *drawn, class_="pictures"))
    if run.results is not None:
        parts.append(_steps(run, run.results))
    if example is not None:
        parts += [element("h3", "An example"), example]
    parts += [_cost(run), _resume(run), _settings(run, opened=runs == 1)]
    return element("section", *parts, id=anchor)


def _facts(run: RunContents) -> Html:
    facts = {
        "iterations": _progress(run),
        "last validation": _validation(run),
        "test, after the last step": _result(run),
        "paper": _papers(run),
        "training time": training_time(run),
    }
    tiles = [
        element("div", element("dt", name), element("dd", value))
        for name, value in facts.items()
        if value not in (None, _UNKNOWN)
    ]
    return element("dl", *tiles, class_="facts")


def _steps(run: RunContents, results: Mapping[str, Any]) -> Html:
    metric, others = str(results["metric"]), results.get("other_norms") or {}
    usable = {name: other for name, other in others.items() if len(other["mean"]) == len(results["mean"])}
    header: list[object] = ["inner steps", "ours", *(f"{name} norms" for name in usable)]
    if run.paper:
        header.append("paper")
    rows: list[list[object]] = []
    for step in range(len(results["mean"])):
        row: list[object] = [step]
        row += [format_metric(metric, one["mean"][step], one["ci95"][step]) for one in (results, *usable.values())]
        if run.paper:
            row.append(format_metric(metric, run.paper[step]) if step in run.paper else "")
        rows.append(row)
    about = f"{axis_label(metric)}, mean ± 95% CI over {results['tasks']:,} test tasks"
    if "checkpoint" in results:
        about += f"; {results['checkpoint']} checkpoint, iteration {results.get('checkpoint_iteration', 0):,}"
    lines = [element("p", f"{about}.", class_="muted")]
    if run.paper:
        lines.append(element("p", f"The paper's numbers: {run.row.source}.", class_="muted"))
    title = element("h3", "After every inner step")
    return joined([title, *lines, element("div", table(header, rows, class_="steps"), class_="scroll")])


def _cost(run: RunContents) -> Html:
    rows: list[list[object]] = [[name, value] for name, value in costs(run).items()]
    return joined([element("h3", "Cost"), _definitions(rows)]) if rows else joined([])


def _resume(run: RunContents) -> Html:
    steps = how_to_resume(run)
    lines = [
        joined([element("p", words), element("pre", element("code", code)) if code else ""]) for words, code in steps
    ]
    return joined([element("h3", "How to resume"), *lines])


def _settings(run: RunContents, opened: bool) -> Html:
    if not run.settings:
        return joined([])
    groups = [
        element("div", element("h3", title.capitalize()), _definitions([[k, _value(v)] for k, v in values.items()]))
        for title, values in run.settings.items()
    ]
    return element(
        "details",
        element("summary", "Settings"),
        element("div", *groups, class_="settings"),
        open="" if opened else None,
    )


def _definitions(rows: Sequence[Sequence[object]]) -> Html:
    body = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in rows]
    return element("table", element("tbody", *body), class_="values")


def _value(value: object) -> str:
    return value if isinstance(value, str) else "not set" if value is None else json.dumps(value)


def _progress(run: RunContents) -> str:
    of = "" if run.planned is None or run.finished else f" of {run.planned:,}"
    return f"{run.iterations:,}{of}"


def _validation(run: RunContents) -> str:
    if not run.validations:
        return _UNKNOWN
    last = run.validations[-1]
    return format_metric(run.metric or "", last["validation"], last["validation_ci95"])


def _result(run: RunContents) -> str:
    if run.results is None:
        return _UNKNOWN
    return format_metric(str(run.results["metric"]), run.results["mean"][-1], run.results["ci95"][-1])


def _papers(run: RunContents) -> str:
    """The paper's result after as many inner steps as ours, and its interval if it prints one."""
    if not run.paper:
        return _UNKNOWN
    step = run.row.config.test_steps if run.results is None else len(run.results["mean"]) - 1
    if step not in run.paper:
        return _UNKNOWN
    return format_metric(run.metric or "", run.paper[step], run.row.paper_ci95.get(step))

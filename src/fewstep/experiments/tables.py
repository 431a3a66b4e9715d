"""Results as tables: what each data set's are, in Markdown, and the sinusoid's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from fewstep.experiments import few_shot_tables as few_shot
from fewstep.experiments.results import RowResults

Rows = list[list[str]]
"""A table: the header, then its rows."""


def tables_of(table: str, found: dict[str, RowResults]) -> dict[str, Rows]:
    """The tables that results fill, by title."""
    metric = metric_of(found)
    if metric == "mse":
        return {f"{table}: mean squared error ± 95% CI over 600 test tasks": error_table(found)}
    if metric == "mean_return":
        return {f"{table}: mean return ± 95% CI over 40 test tasks": return_table(found)}
    every = {
        f"{table}: accuracy in % ± 95% CI over test tasks, ours beside the paper's": few_shot.of_the_papers,
        f"{table}: every method after as many training tasks": few_shot.at_equal_budget,
        f"{table}: MAML++ part by part": few_shot.ablation,
        f"{table}: whose statistics normalise query images": few_shot.policies,
    }
    made = {title: make(found) for title, make in every.items()}
    return {title: rows for title, rows in made.items() if len(rows) > 1}


def metric_of(found: dict[str, RowResults]) -> str:
    """The name of the metric that the rows of a table are measured by; empty if there are no results."""
    return next((result.row.config.metric.__name__ for result in found.values()), "")


def error_table(found: dict[str, RowResults], steps: Sequence[int] = (1, 5, 10)) -> Rows:
    """Errors after some numbers of inner steps, the paper's beside them, seeds and iterations."""
    return _over_steps(found, steps, "step", lambda result, k: _error(*result.after(k)), digits=2)


def return_table(found: dict[str, RowResults], steps: Sequence[int] = (0, 1, 2, 3)) -> Rows:
    """Returns after some numbers of updates, the paper's beside them, seeds, iterations, and what was tested on."""
    header, *rows = _over_steps(found, steps, "update", _return, digits=1)
    tested = [result.tested_on for result in found.values()]
    return [[*header, "episodes, tasks"], *([*row, on] for row, on in zip(rows, tested, strict=True))]


def _over_steps(
    found: dict[str, RowResults], steps: Sequence[int], step: str, ours: Callable[[RowResults, int], str], digits: int
) -> Rows:
    header = ["experiment", *(f"{k} {step}{'s' * (k != 1)}" for k in steps), *(f"paper, {k}" for k in steps)]
    table = [[*header, "seeds", "iterations"]]
    for name, result in found.items():
        paper = result.row.paper
        measured = [ours(result, k) for k in steps]
        theirs = [f"{paper[k]:.{digits}f}" if k in paper else "–" for k in steps]
        table.append([name, *measured, *theirs, ", ".join(str(seed) for seed in result.seeds), result.trained])
    return table


def _return(result: RowResults, updates: int) -> str:
    return "{:.1f} ± {:.1f}".format(*result.after(updates)) if updates <= result.steps else "–"


def _error(mean: float, interval: float) -> str:
    if not math.isfinite(mean) or mean > 1e4:
        return "diverges"
    digits = 2 if mean >= 0.1 else 4
    return f"{mean:.{digits}f} ± {interval:.{digits}f}"


def markdown(table: Rows) -> str:
    """A table in Markdown; a line that says so where there are no results."""
    header, *rows = table
    if not rows:
        return "No results yet.\n"
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def page(tables: dict[str, Rows]) -> str:
    """Tables in Markdown, with their titles where there are several."""
    if len(tables) == 1:
        return markdown(next(iter(tables.values())))
    return "\n".join(f"## {title}\n\n{markdown(rows)}" for title, rows in tables.items())

"""The tables of few-shot classification: the papers' rows, equal budgets, MAML++'s parts, and norm policies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fewstep.experiments.results import RowResults
from fewstep.experiments.row import Comparison

_POLICIES = ("batch", "support")
_UNKNOWN = "–"


def compared(found: dict[str, RowResults], *comparisons: Comparison) -> dict[str, RowResults]:
    """Results of the rows of some comparisons, by the label of the row."""
    return {result.row.label: result for result in found.values() if result.row.comparison in comparisons}


def methods_at_equal_budget(found: dict[str, RowResults]) -> dict[str, RowResults]:
    """Results of whole methods at equal budget by label, the most accurate first."""
    methods = compared(found, "budget")
    return dict(sorted(methods.items(), key=lambda item: item[1].after(item[1].steps)[0], reverse=True))


def of_the_papers(found: dict[str, RowResults]) -> list[list[str]]:
    """Rows of the papers: ours at the row's number of test steps, and theirs."""
    table = [["experiment", "ours", "paper", "test steps", "norm", "seeds", "iterations", "training tasks"]]
    for name, result in found.items():
        if result.row.comparison != "papers":
            continue
        row, steps = result.row, result.row.config.test_steps
        paper = row.paper.get(steps)
        theirs = "–" if paper is None else percent(paper, row.paper_ci95.get(steps))
        ours = percent(*result.after(steps), digits=_digits(paper or 0.0, row.paper_ci95.get(steps)))
        known = [str(steps), row.config.norm, _seeds(result), result.trained, f"{result.training_tasks:,}"]
        table.append([name, ours, theirs, *known])
    return table


def at_equal_budget(found: dict[str, RowResults]) -> list[list[str]]:
    """Every method: accuracy, what training and a new task cost, and how long it was trained."""
    header = ["method", "accuracy, %", "s per 1,000 training tasks", "ms per test task", "norm", "seeds", "iterations"]
    table = [[*header, "training tasks"]]
    for label, result in methods_at_equal_budget(found).items():
        accuracy = percent(*result.after(result.steps), digits=1)
        known = [result.row.config.norm, _seeds(result), result.trained, f"{result.training_tasks:,}"]
        table.append([label, accuracy, _training(result), _adaptation(result), *known])
    return table


def ablation(found: dict[str, RowResults]) -> list[list[str]]:
    """MAML++: none of its parts, each alone, and all of them; and what each adds, in points."""
    header = ["parts", "accuracy, %", "against none", "s per 1,000 training tasks", "seeds", "iterations"]
    parts = compared(found, "ablation")
    if not parts:
        return [header]
    methods = compared(found, "budget")
    if "maml++" in methods:
        parts["all"] = methods["maml++"]
    none = parts["none"].after(parts["none"].steps)[0] if "none" in parts else None
    table = [header]
    for part, result in parts.items():
        mean, interval = result.after(result.steps)
        gain = "–" if none is None or part == "none" else f"{100 * (mean - none):+.1f}".replace("-", "−")
        table.append([part, percent(mean, interval, digits=1), gain, _training(result), _seeds(result), result.trained])
    return table


def policies(found: dict[str, RowResults]) -> list[list[str]]:
    """Experiments that were trained under both policies: query images normalised with each other, or by the support.

    Where a run was also tested under the policy that it was not trained with, that is beside it.
    """
    header = ["experiment", "trained under", *(f"tested under {policy}" for policy in _POLICIES), "seeds", "iterations"]
    groups: dict[Any, list[RowResults]] = {}
    for result in found.values():
        if result.row.config.norm in _POLICIES:
            groups.setdefault(replace(result.row.config, norm="batch"), []).append(result)
    table = [header]
    for results in groups.values():
        both = len({result.row.config.norm for result in results}) == 2
        for result in results:
            under = {policy: _under(result, policy) for policy in _POLICIES}
            if both or None not in under.values():
                cells = [_UNKNOWN if value is None else percent(*value, digits=1) for value in under.values()]
                table.append([result.name, result.row.config.norm, *cells, _seeds(result), result.trained])
    return table


def percent(mean: float, ci95: float | None = None, digits: int | None = None) -> str:
    """An accuracy in percent, with as many digits as are needed, or given.

    >>> percent(0.987, 0.004), percent(0.4870, 0.0184), percent(0.98634, 0.0021, digits=1)
    ('98.7 ± 0.4', '48.70 ± 1.84', '98.6 ± 0.2')
    """
    digits = _digits(mean, ci95) if digits is None else digits
    return f"{100 * mean:.{digits}f}" + ("" if ci95 is None else f" ± {100 * ci95:.{digits}f}")


def _digits(mean: float, ci95: float | None) -> int:
    """One, or two where a paper's numbers have them."""
    return 2 if any(abs(1000 * value - round(1000 * value)) > 1e-6 for value in (mean, ci95 or 0.0)) else 1


def _under(result: RowResults, policy: str) -> tuple[float, float] | None:
    """Accuracy under a policy: the row's own, or another that all of its runs were tested with."""
    if policy == result.row.config.norm:
        return result.after(result.steps)
    tested = [run.get("other_norms", {}).get(policy) for run in result.runs]
    if None in tested:
        return None
    means, intervals = ([run[key][-1] for run in tested] for key in ("mean", "ci95"))
    return sum(means) / len(means), sum(intervals) / len(intervals)


def _seeds(result: RowResults) -> str:
    return ", ".join(str(seed) for seed in result.seeds)


def _training(result: RowResults) -> str:
    seconds = result.mean_of("seconds_per_1000_tasks")
    return _UNKNOWN if seconds is None else _short(seconds)


def _adaptation(result: RowResults) -> str:
    seconds = result.mean_of("adaptation_seconds")
    return _UNKNOWN if seconds is None else _short(1000 * seconds)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

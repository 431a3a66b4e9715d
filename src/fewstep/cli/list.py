"""``fewstep list``."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import tyro

from fewstep.cli.parsing import parse
from fewstep.evaluation.numbers import format_metric
from fewstep.experiments.runs import EXPERIMENTS


@dataclass(frozen=True)
class List:
    """Show every experiment with its summary and the paper's numbers."""

    match: tyro.conf.Positional[str] = "*"
    """Only names that match this shell-style pattern."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    list_experiments(parse(List, "list", words))


def list_experiments(options: List) -> None:
    """``fewstep list``"""
    rows = [row for name, row in EXPERIMENTS.items() if fnmatchcase(name, options.match)]
    if not rows:
        raise ValueError(f"no experiment matches {options.match!r}; `fewstep list` shows all.")
    width = max(len(row.name) for row in rows)
    for row in rows:
        metric = row.config.metric.__name__
        paper = ", ".join(f"{format_metric(metric, value)} after {k}" for k, value in row.paper.items())
        print(f"{row.name:<{width}}  {row.summary}" + (f"  [paper: {paper} steps]" if paper else ""))
